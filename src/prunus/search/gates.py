"""Which channels live, as something that gradients train: the depthwise binary convolution.

Each group of channels that live or die together has a number b; it lives while b is above 0.5, and gradients pass as if
the network had been multiplied by b. Source: Li et al., "Pruning-as-Search", IJCAI 2022, arXiv:2206.01198; forward and
backward as in the authors' code. Ours: the mask is an exact 0 or 1, so that removal is exact; the last channel of a
layer stays; b is shared by all places where a group's channels are (a residual stage has one mask).
"""

from collections.abc import Mapping
from typing import cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from prunus.errors import ShrinkError, UnsupportedError
from prunus.search.branches import branched, merge
from prunus.training.shrink.follow import Followed, follow
from prunus.training.shrink.groups import Groups
from prunus.training.shrink.trace import Inputs, trace
from prunus.training.shrink.units import WHOLE, Ids

ALIVE = 0.5
_POINTWISE = ("call_module", "call_function", "call_method")


@final
class Gates(nn.Module):
    """b: float[groups.n], 1 at first. While `frozen` is set, masks stay as they were then."""

    def __init__(self, groups: Groups) -> None:
        super().__init__()
        self.b = nn.Parameter(torch.ones(groups.n))
        bundle = np.zeros(groups.n, np.int64)
        for number, members in enumerate(groups.bundles):
            bundle[members] = number
        self.n_bundles = len(groups.bundles)
        self.register_buffer("bundle", torch.from_numpy(bundle), persistent=False)
        self.register_buffer("given", torch.ones(groups.n))
        self.frozen = False

    def forward(self) -> Tensor:
        """float[n] of exact zeros and ones, with the gradient of b."""
        given = cast(Tensor, self.given)
        if self.frozen:
            return given
        return self.alive() + (self.b - self.b.detach())

    @torch.no_grad()
    def alive(self) -> Tensor:
        """float[n]: b above 0.5; in a bundle where none is, the largest."""
        if self.frozen:
            return cast(Tensor, self.given)
        bundle = cast(Tensor, self.bundle)
        top = torch.full((self.n_bundles,), -torch.inf, device=self.b.device)
        top = top.scatter_reduce(0, bundle, self.b.detach(), "amax")[bundle]
        last = (top <= ALIVE) & (self.b == top)
        number = torch.arange(len(self.b), device=self.b.device)  # of several as large the first one only
        first = torch.full((self.n_bundles,), len(self.b), device=self.b.device)
        first = first.scatter_reduce(0, bundle, torch.where(last, number, len(self.b)), "amin")[bundle]
        return ((self.b > ALIVE) | (number == first)).float()

    @torch.no_grad()
    def freeze(self, keep: NDArray[np.bool_] | None = None) -> None:
        """Masks as `keep` says, or as they are, from now on."""
        found = self.alive() if keep is None else torch.from_numpy(keep.astype(np.float32))
        cast(Tensor, self.given).copy_(found)
        self.frozen = True
        self.b.requires_grad_(False)


@final
class DepthwiseBinary(nn.Module):
    """Multiplies channels by their gates. ids: int64, the group of each channel, WHOLE where it stays."""

    def __init__(self, gates: Gates, dim: int, ids: Ids) -> None:
        super().__init__()
        self._gates = (gates,)  # a tuple, so that it isn't registered once more at each place
        self.dim = dim
        self.register_buffer("ids", torch.from_numpy(np.where(ids == WHOLE, len(gates.b), ids)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Like x."""
        mask = _placed(self._gates[0], cast(Tensor, self.ids))
        return x * mask.to(x.dtype).reshape([-1 if d == self.dim else 1 for d in range(x.ndim)])

    def __deepcopy__(self, memo: dict[int, object]) -> "DepthwiseBinary":
        raise TypeError("gates are shared: copy the network without them")


@final
class GatedRecurrent(nn.Module):
    """RNN, GRU or LSTM whose units read each other, and those of the layer below, through gates.

    ids: by the names of its weights, the group of each of their columns.
    """

    def __init__(self, gates: Gates, layer: nn.RNNBase, ids: Mapping[str, Ids]) -> None:
        super().__init__()
        self._gates, self.layer, self.names = (gates,), layer, tuple(ids)
        for name, columns in ids.items():
            places = torch.from_numpy(np.where(columns == WHOLE, len(gates.b), columns))
            self.register_buffer(f"ids_{name}", places, persistent=False)

    def forward(self, *args: object, **named: object) -> object:
        """As the layer."""
        own, names = self.layer._flat_weights, self.layer._flat_weights_names
        masks = {name: _placed(self._gates[0], cast(Tensor, getattr(self, f"ids_{name}"))) for name in self.names}
        self.layer._flat_weights = [
            weight * masks[name] if name in masks and weight is not None else weight
            for name, weight in zip(names, own, strict=True)
        ]
        try:
            return self.layer(*args, **named)
        finally:
            self.layer._flat_weights = own

    def __deepcopy__(self, memo: dict[int, object]) -> "GatedRecurrent":
        raise TypeError("gates are shared: copy the network without them")


def _placed(gates: Gates, ids: Tensor) -> Tensor:
    """The masks of positions; ids beyond the last group stay."""
    mask: Tensor = gates()
    return torch.cat([mask, mask.new_ones(1)])[ids]


@final
class Gated(nn.Module):
    """A network with gates, which has the modules, and so the weights, of the one that it was made from.

    network: the graph with gates in it, as it is in training. still: in evaluation, the same layers. plain: what it was
    made from. groups: of the merged network, where it has branches.
    """

    def __init__(
        self, network: fx.GraphModule, still: fx.GraphModule, plain: nn.Module, groups: Groups, gates: Gates
    ) -> None:
        super().__init__()
        self.network, self.still, self.gates, self.groups = network, still, gates, groups
        self._plain = (plain,)

    def forward(self, *inputs: Tensor) -> object:
        """What the network answers."""
        return self.network(*inputs) if self.training else self.still(*inputs)

    def weights(self) -> list[nn.Parameter]:
        """Of the network, without b."""
        return list(self.network.parameters())

    @property
    def plain(self) -> nn.Module:
        """The network without gates."""
        return self._plain[0]

    def keep(self) -> NDArray[np.bool_]:
        """bool[groups.n]: what lives."""
        keep: NDArray[np.bool_] = self.gates.alive().cpu().numpy() > 0
        return keep


def insert_gates(model: nn.Module, example_inputs: Inputs) -> Gated:
    """The network with a gate wherever a layer with weights reads channels that may go: behind activation, addition
    and pooling; and within recurrent layers.

    Raises UnsupportedError: torch.fx can't trace the model, it can't be run on the inputs, or its layers are others in
    training than in evaluation. ShrinkError: nothing in it can go, with the first reason.
    """
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    merged = merge(model) if branched(model) else model
    followed = follow(merged, inputs)
    groups = followed.groups
    if groups.n == 0:
        reason = next(iter(groups.reasons.values()), "no layers with weights")
        raise ShrinkError(f"{type(model).__name__}: no channel can go: {reason}")
    graphs = [_traced(model, inputs, training) for training in (True, False)]
    _same_layers(type(model).__name__, *graphs)
    gates, made = Gates(groups), dict[str, nn.Module]()
    network, still = (_gated(model, graph, followed, gates, made) for graph in graphs)
    return Gated(network, still, model, groups, gates)


def _traced(model: nn.Module, inputs: tuple[Tensor, ...], training: bool) -> fx.Graph:
    """The graph in that mode; what functions are told of it, as dropout is, is part of the graph."""
    modes = {module: module.training for module in model.modules()}
    try:
        model.train(training)
        return trace(model, inputs)
    finally:
        for module, mode in modes.items():
            module.training = mode


def _same_layers(model: str, training: fx.Graph, still: fx.Graph) -> None:
    """Raises UnsupportedError: other nodes, of which the first is named."""
    steps = [[(node.name, node.op, str(node.target)) for node in graph.nodes] for graph in (training, still)]
    for mode, some, others in (("training", *steps), ("evaluation", *reversed(steps))):
        if odd := [name for name, *what in some if (name, *what) not in set(others)]:
            raise UnsupportedError(f"{model}: {odd[0]}: in {mode} only, expected the same layers in both modes")


def _gated(
    model: nn.Module, graph: fx.Graph, followed: Followed, gates: Gates, made: dict[str, nn.Module]
) -> fx.GraphModule:
    """The graph with gates in it. made: gates by their names, which all graphs of a network have in common."""
    root = fx.GraphModule(model, graph)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for node in list(graph.nodes):
        if node.op == "call_module" and isinstance(layer := root.get_submodule(str(node.target)), nn.RNNBase):
            own = {name: followed.groups.ties.get((names[id(p)], 1)) for name, p in layer.named_parameters()}
            inner = {name: ids for name, ids in own.items() if ids is not None and not name.startswith("weight_ih_l0")}
            if inner:
                node.target = f"gates_{node.name}"
                root.add_submodule(node.target, made.setdefault(node.target, GatedRecurrent(gates, layer, inner)))
        if node.name in followed.channels and any(_reads(root, user) for user in node.users):
            name = f"gate_{node.name}"
            root.add_submodule(name, made.setdefault(name, DepthwiseBinary(gates, *followed.channels[node.name])))
            with graph.inserting_after(node):
                gate = graph.call_module(name, (node,))
            node.replace_all_uses_with(gate, lambda user, gate=gate: user is not gate)
    graph.lint()
    root.recompile()
    return root


def _reads(root: fx.GraphModule, node: fx.Node) -> bool:
    """Does the node multiply by weights of more than one channel?"""
    if node.op == "call_module":
        module = root.get_submodule(str(node.target))
        if getattr(module, "groups", 1) > 1 and getattr(module, "groups", 1) == getattr(module, "in_channels", 0):
            return False  # depthwise: the layer behind it has the gate
        return hasattr(module, "merged") or isinstance(
            module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear | nn.RNNBase | GatedRecurrent
            | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d,
        )  # fmt: skip
    name = getattr(node.target, "__name__", str(node.target))
    return node.op in _POINTWISE and (name in ("linear", "matmul") or name.startswith("conv"))
