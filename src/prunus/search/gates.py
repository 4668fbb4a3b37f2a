"""Which channels live, as something that gradients train: the depthwise binary convolution.

Each group of channels that live or die together has a number b; it lives while b is above 0.5, and gradients pass as if
the network had been multiplied by b. Source: Li et al., "Pruning-as-Search", IJCAI 2022, arXiv:2206.01198; forward and
backward as in the authors' code. Ours: the mask is an exact 0 or 1, so that removal is exact; the last channel of a
layer stays; b is shared by all places where a group's channels are (a residual stage has one mask).
"""

from typing import cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from prunus.errors import ShrinkError
from prunus.search.branches import branched, merge
from prunus.training.shrink.follow import follow
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
        return ((self.b > ALIVE) | ((top <= ALIVE) & (self.b == top))).float()

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
        mask = self._gates[0]()
        mask = torch.cat([mask, mask.new_ones(1)])[cast(Tensor, self.ids)]
        return x * mask.to(x.dtype).reshape([-1 if d == self.dim else 1 for d in range(x.ndim)])

    def __deepcopy__(self, memo: dict[int, object]) -> "DepthwiseBinary":
        raise TypeError("gates are shared: copy the network without them")


@final
class Gated(nn.Module):
    """A network with gates, which has the modules, and so the weights, of the one that it was made from.

    network: the graph with DepthwiseBinary in it. plain: what it was made from. groups: of the merged network, where it
    has branches.
    """

    def __init__(self, network: fx.GraphModule, plain: nn.Module, groups: Groups, gates: Gates) -> None:
        super().__init__()
        self.network, self.gates, self.groups = network, gates, groups
        self._plain = (plain,)

    def forward(self, *inputs: Tensor) -> object:
        """What the network answers."""
        return self.network(*inputs)

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
    and pooling.

    Raises UnsupportedError: torch.fx can't trace the model, or it can't be run on the inputs. ShrinkError: nothing in
    it can go, with the first reason.
    """
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    modes = {module: module.training for module in model.modules()}
    merged = merge(model) if branched(model) else model
    followed = follow(merged, inputs)
    groups = followed.groups
    if groups.n == 0:
        reason = next(iter(groups.reasons.values()), "no layers with weights")
        raise ShrinkError(f"{type(model).__name__}: no channel can go: {reason}")
    try:
        model.train()
        graph = trace(model, inputs)
    finally:
        for module, mode in modes.items():
            module.training = mode
    gates = Gates(groups)
    root = fx.GraphModule(model, graph)
    places = 0
    for node in list(graph.nodes):
        if node.name in followed.channels and any(_reads(root, user) for user in node.users):
            dim, ids = followed.channels[node.name]
            name = f"gate{places}"
            root.add_submodule(name, DepthwiseBinary(gates, dim, ids))
            with graph.inserting_after(node):
                gate = graph.call_module(name, (node,))
            node.replace_all_uses_with(gate, lambda user, gate=gate: user is not gate)
            places += 1
    root.recompile()
    return Gated(root, model, groups, gates)


def _reads(root: fx.GraphModule, node: fx.Node) -> bool:
    """Does the node multiply by weights of more than one channel?"""
    if node.op == "call_module":
        module = root.get_submodule(str(node.target))
        if getattr(module, "groups", 1) > 1 and getattr(module, "groups", 1) == getattr(module, "in_channels", 0):
            return False  # depthwise: the layer behind it has the gate
        return hasattr(module, "merged") or isinstance(
            module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear | nn.RNNBase
            | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d,
        )  # fmt: skip
    name = getattr(node.target, "__name__", str(node.target))
    return node.op in _POINTWISE and (name in ("linear", "matmul") or name.startswith("conv"))
