"""From a module and example inputs to its groups: traced by torch.fx, run once, followed operator by operator.

An operator without a rule keeps all channels that reach it whole, and says so; nothing is guessed.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, fx, nn

from prunus.errors import UnsupportedError
from prunus.training.shrink import arranged, pointwise, weighted
from prunus.training.shrink.groups import Groups, gather
from prunus.training.shrink.trace import Inputs, trace
from prunus.training.shrink.units import WHOLE, Ids, varying
from prunus.training.shrink.walk import Free, Step, Walk

_LINES = ("activation", "dropout")  # modules of torch.nn whose members are element-wise
_SPATIAL = ("pooling", "upsampling")
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_HARMLESS = {"dim", "ndimension", "get_device", "is_floating_point", "is_contiguous", "len"}
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@final
@dataclass(frozen=True, eq=False)
class Followed:
    """A network's graph and groups. channels: by node, the dimension along which its channels lie, and the group of
    each; of nodes without channels that may go there is none."""

    graph: fx.Graph
    groups: Groups
    channels: Mapping[str, tuple[int, Ids]]


def find_groups(model: nn.Module, example_inputs: Inputs) -> Groups:
    """Which channels of which layers live or die together; the model is left as it is.

    Raises UnsupportedError: torch.fx can't trace the model, or it can't be run on the inputs.
    """
    return follow(model, example_inputs).groups


def follow(model: nn.Module, example_inputs: Inputs) -> Followed:
    """As `find_groups`, and where in the graph the groups' channels are."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    given = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    inputs = tuple(x.to(device) for x in given)
    modes = {module: module.training for module in model.modules()}
    state = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    model.eval()
    try:
        graph = trace(model, inputs)
        walk = Walk(model)
        follower = _Follower(model, graph, walk)
        with torch.no_grad():
            follower.run(*inputs)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnsupportedError(f"{type(model).__name__}: can't be run on the example inputs: {said}") from error
    finally:
        for module, mode in modes.items():
            module.training = mode
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(state[name])
    groups, group_of = gather(walk)
    channels = {}
    for node, known in follower.known.items():
        dims = varying(known) if isinstance(known, np.ndarray) else []
        if len(dims) == 1 and ((ids := group_of(known.reshape(-1))) != WHOLE).any():
            channels[node.name] = dims[0], ids
    return Followed(graph, groups, channels)


class _Follower(fx.Interpreter):
    def __init__(self, model: nn.Module, graph: fx.Graph, walk: Walk) -> None:
        super().__init__(model, graph=graph)
        self._walk = walk
        self.known: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        out = super().run_node(n)
        self.known[n] = self._follow(n, out)
        return out

    def _follow(self, node: fx.Node, out: Any) -> Any:
        if node.op == "placeholder":
            return None
        if node.op == "get_attr":
            name = self._walk.name(out)
            return Free(name) if name is not None else None
        if node.op == "call_module":
            module = self._walk.modules[str(node.target)]
            step = Step(self._walk, node, type(module).__name__, self.env, self.known)
            step.out = out
            return _checked(step, _module(step, module))
        if node.op == "output":
            Step(self._walk, node, "output", self.env, self.known).pin(None, "the network's output")
            return None
        step = Step(self._walk, node, _op(node), self.env, self.known)
        step.out = out
        return _checked(step, _operator(step))


def _checked(step: Step, known: Any) -> Any:
    """What a rule says, if it fits the shape of what came out: arguments may be given in ways that it doesn't know."""
    if isinstance(known, np.ndarray):
        shape = tuple(step.out.shape) if isinstance(step.out, Tensor) else None
        if shape is None or len(shape) != known.ndim:
            return _unknown(step)
        if any(n not in (1, extent) for n, extent in zip(known.shape, shape, strict=True)):
            return _unknown(step)
    return known


def _op(node: fx.Node) -> str:
    """The operator's name, the same for functions, methods and those that write in place; "" where it isn't torch's."""
    if isinstance(node.target, str):
        return node.target.rstrip("_")
    home = getattr(node.target, "__module__", None) or "torch"
    if home.split(".")[0] not in ("torch", "_operator", "builtins", "math"):
        return f"{home}.{getattr(node.target, '__name__', node.target)}"
    return str(getattr(node.target, "__name__", node.target)).rstrip("_")


def _module(step: Step, module: nn.Module) -> Any:
    home = type(module).__module__.rpartition(".")[2]
    held = [name for name in ("weight", "bias") if isinstance(getattr(module, name, None), Tensor)]
    computed = [name for name in held if name not in module._parameters]
    if not type(module).__module__.startswith("torch.nn.") or computed:
        return _unknown(step)
    if isinstance(module, _CONVOLUTIONS):
        transposed = "Transpose" in type(module).__name__
        return weighted.convolve(step, module.weight, module.bias, module.groups, transposed)
    if isinstance(module, nn.Linear):
        return weighted.multiply(step, module.weight, module.bias)
    if isinstance(module, nn.RNNBase):
        return weighted.recur(step, module)
    if isinstance(module, (*_BATCH_NORMS, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)):
        return weighted.normalise(step, [module.weight, module.bias, module.running_mean, module.running_var])
    if isinstance(module, nn.LayerNorm):
        return pointwise.layer_norm(step, module.normalized_shape)
    if isinstance(module, nn.PReLU):
        return weighted.rectify(step, module.weight)
    if isinstance(module, nn.Softmax | nn.LogSoftmax | nn.Softmin):
        return pointwise.soften(step, module.dim)
    if isinstance(module, nn.GLU):
        return pointwise.gate(step, module.dim)
    if isinstance(module, nn.Flatten):
        return arranged.reshape(step, [])
    if isinstance(module, nn.Identity) or (home in _LINES and not isinstance(module, nn.MultiheadAttention)):
        return _unknown(step) if isinstance(module, nn.Softmax2d) else pointwise.combine(step)
    if home in _SPATIAL and "Unpool" not in type(module).__name__:
        return pointwise.pool(step)
    if home == "padding":
        mode = "constant" if "Zero" in type(module).__name__ or "Constant" in type(module).__name__ else "other"
        amounts = module.padding
        return arranged.pad(step, amounts, mode)
    return _unknown(step)


def _operator(step: Step) -> Any:
    rule = _RULES.get(step.op)
    if rule is not None:
        return rule(step)
    if step.op in pointwise.ELEMENTWISE and isinstance(step.out, Tensor):
        return pointwise.combine(step)
    if step.op in pointwise.POOLING:
        return pointwise.pool(step)
    if step.op in pointwise.REDUCTIONS and isinstance(step.out, Tensor):
        return arranged.reduce(step, step.value(step.raw(1, "dim")), bool(step.raw(2, "keepdim", False)))
    if step.op in pointwise.SOFTMAX:
        return pointwise.soften(step, step.value(step.raw(1, "dim")))
    return None if step.op in _HARMLESS else _unknown(step)


def _unknown(step: Step) -> None:
    step.pin(None, "not followed by Prunus")


def _sizes(step: Step) -> list[Any]:
    """The sizes of a view or reshape as they are written, one per dimension."""
    given = step.node.args[1:] or (step.node.kwargs.get("shape", step.node.kwargs.get("size")),)
    sizes = given[0] if len(given) == 1 and isinstance(given[0], list | tuple) else given
    n_dims = step.out.ndim
    if len(sizes) != n_dims:  # one computed shape: as if written
        return [0] * n_dims
    return list(sizes)


def _order(step: Step) -> tuple[int, ...]:
    given = step.node.args[1:] or (step.node.kwargs["dims"],)
    return tuple(step.value(given[0] if isinstance(given[0], list | tuple) else given))


def _shape(step: Step) -> Any:
    if step.raw(1, "name") in ("shape",):
        return arranged.read_sizes(step, None)
    if step.raw(1, "name") in ("device", "dtype", "ndim"):
        return None
    if step.raw(1, "name") == "T" and isinstance(step.out, Tensor):
        return arranged.permute(step, tuple(reversed(range(step.out.ndim))))
    return _unknown(step)


def _parameters(*places: tuple[int, str]) -> Callable[[Step], list[Any]]:
    def pick(step: Step) -> list[Any]:
        return [step.value(step.raw(index, name)) for index, name in places]

    return pick


def _convolve(step: Step, transposed: bool = False) -> Any:
    weight, bias = _parameters((1, "weight"), (2, "bias"))(step)
    groups = step.value(step.raw(6, "groups", 1))
    return weighted.convolve(step, weight, bias, groups, transposed)


def _batch_norm(step: Step) -> Any:
    return weighted.normalise(
        step, _parameters((1, "running_mean"), (2, "running_var"), (3, "weight"), (4, "bias"))(step)
    )


def _cut(step: Step, dim: int, sizes: Any) -> Any:
    return arranged.cut(step, dim, sizes, len(step.out))


_Rule = Callable[[Step], Any]
_RULES: dict[str, _Rule] = {
    **{f"conv{n}d": _convolve for n in (1, 2, 3)},
    "linear": lambda step: weighted.multiply(step, *_parameters((1, "weight"), (2, "bias"))(step)),
    "batch_norm": _batch_norm,
    "layer_norm": lambda step: pointwise.layer_norm(step, tuple(step.value(step.raw(1, "normalized_shape")))),
    "flatten": lambda step: arranged.reshape(step, []),
    "view": lambda step: arranged.reshape(step, _sizes(step)),
    "reshape": lambda step: arranged.reshape(step, _sizes(step)),
    "permute": lambda step: arranged.permute(step, _order(step)),
    "transpose": lambda step: arranged.swap(step, step.raw(1, "dim0"), step.raw(2, "dim1")),
    "squeeze": lambda step: arranged.squeeze(step, step.raw(1, "dim")),
    "unsqueeze": lambda step: arranged.unsqueeze(step, step.raw(1, "dim")),
    "cat": lambda step: arranged.join(step, step.raw(1, "dim", 0), False),
    "concat": lambda step: arranged.join(step, step.raw(1, "dim", 0), False),
    "stack": lambda step: arranged.join(step, step.raw(1, "dim", 0), True),
    "chunk": lambda step: _cut(step, step.raw(2, "dim", 0), None),
    "split": lambda step: _cut(step, step.raw(2, "dim", 0), step.raw(1, "split_size_or_sections", 1)),
    "getitem": arranged.index,
    "getattr": _shape,
    "size": lambda step: arranged.read_sizes(step, step.raw(1, "dim")),
    "pad": lambda step: arranged.pad(step, step.value(step.raw(1, "pad")), step.raw(2, "mode", "constant")),
    "glu": lambda step: pointwise.gate(step, step.raw(1, "dim", -1)),
}


def copy_of(model: nn.Module) -> nn.Module:
    """A deep copy. Raises UnsupportedError: it can't be copied."""
    try:
        return copy.deepcopy(model)
    except (RuntimeError, TypeError) as error:
        raise UnsupportedError(f"{type(model).__name__}: can't be copied: {error}") from error
