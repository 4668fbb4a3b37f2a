"""Which weight of a torch module a layer of an ONNX file is."""

import difflib
from collections.abc import Sequence

from prunus.errors import RuleError
from prunus.mapping.space import LayerSpace, Space
from prunus.training.exported import module_name
from prunus.training.layers import Layer


def parameters_of(space: Space, layers: Sequence[Layer]) -> list[tuple[str, ...]]:
    """The names of each layer's parameters, among `layers` as `find_layers` has them; none of one without a choice.

    Both may be of the same file, or the file an export of the module: then nodes are called after modules.
    Raises RuleError: a layer is none of the module's, or its weights have another shape.
    """
    return [names_of(layer, layers) if len(layer.options) > 1 else () for layer in space.layers]


def names_of(layer: LayerSpace, layers: Sequence[Layer]) -> tuple[str, ...]:
    """As `parameters_of`, of one layer."""
    for names in ((layer.weight, *layer.others), (layer.name,), (module_name(layer.name),)):
        found = [own for own in layers if any(name and name in own.names for name in names)]
        if found:
            if tuple(found[0].weight.shape) != layer.shape:
                there = list(found[0].weight.shape)
                raise RuleError(f"layer {layer.name}: {list(layer.shape)} in the file, {there} in the module")
            return tuple(own.parameter for own in found)
    known = [own.name for own in layers]
    near = difflib.get_close_matches(module_name(layer.name) or layer.name, known, n=3, cutoff=0.0)
    raise RuleError(f"layer {layer.name} is none of the module's; expected one as {', '.join(near) or 'none has any'}")
