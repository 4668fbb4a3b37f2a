"""The inputs of a model: which dimensions are open, and what they are set to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnx import ModelProto, ValueInfoProto

from prunus.errors import FeedError, ModelError, UnsupportedError
from prunus.graph.ir import Shape

Dims = tuple[int | str, ...]


@dataclass(frozen=True)
class Ports:
    """Shapes of the inputs with every dimension set; `batch`: all leading ones were symbolic."""

    shapes: Mapping[str, Shape]
    batch: bool

    def scaled(self, factor: int) -> Mapping[str, Shape]:
        """The shapes with leading dimensions times `factor`."""
        return {name: (shape[0] * factor, *shape[1:]) for name, shape in self.shapes.items()}


def resolve_ports(model: ModelProto, given: Mapping[str, Sequence[int]] | None) -> Ports:
    """Shapes of the inputs that aren't constants: those given, else the file's with a symbolic leading dim as 1.

    Raises ModelError: another symbolic dimension without a value. FeedError: a given name or shape that can't be.
    UnsupportedError: an input that isn't a tensor.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {sparse.values.name for sparse in model.graph.sparse_initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    names = [value.name for value in inputs]
    given = dict(given or {})
    for name in given:
        if name not in names:
            raise FeedError(f"input shape for {name!r}: the network has {', '.join(names) or 'no inputs'}")
    dims = {value.name: _dims(value) for value in inputs}
    shapes = {}
    for name, found in dims.items():
        shapes[name] = _given(name, found, given[name]) if name in given else _own(name, found)
    batch = bool(names) and all(found and not isinstance(found[0], int) for found in dims.values() if found is not None)
    batch = batch and all(found is not None for found in dims.values())
    return Ports(shapes, batch and all(shape and shape[0] > 0 for shape in shapes.values()))


def _dims(value: ValueInfoProto) -> Dims | None:
    """Sizes, with a text for each symbolic one; None where the file doesn't say the rank."""
    if value.type.WhichOneof("value") != "tensor_type":
        kind = value.type.WhichOneof("value") or "unknown type"
        raise UnsupportedError(f"input {value.name!r} is a {kind}, expected a tensor")
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    # some exporters write 0 or -1 for "any"
    return tuple(
        int(dim.dim_value) if dim.HasField("dim_value") and dim.dim_value > 0 else dim.dim_param or "?"
        for dim in tensor.shape.dim
    )


def _given(name: str, found: Dims | None, given: Sequence[int]) -> Shape:
    shape = tuple(int(n) for n in given)
    if found is not None and len(shape) != len(found):
        raise FeedError(f"input {name!r}: shape {list(shape)} given, the model has {len(found)} dimensions {list(found)}")
    if any(n < 1 for n in shape):
        raise FeedError(f"input {name!r}: shape {list(shape)} given, expected positive sizes")
    return shape


def _own(name: str, found: Dims | None) -> Shape:
    if found is None:
        raise ModelError(f"input {name!r} has no shape: pass one, as in input_shapes={{{name!r}: (1, 3, 224, 224)}}")
    shape: list[int] = []
    for axis, dim in enumerate(found):
        if isinstance(dim, int):
            shape.append(dim)
        elif axis == 0:
            shape.append(1)
        else:
            example = ", ".join(str(d) if isinstance(d, int) else "1" if i == 0 else f"<{d}>" for i, d in enumerate(found))
            raise ModelError(
                f"input {name!r}: dimension {axis} is symbolic ({dim}): pass a value, as in "
                f"input_shapes={{{name!r}: ({example})}}"
            )
    return tuple(shape)
