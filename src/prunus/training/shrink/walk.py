"""What a walk over a traced network gathers, and what the rules of operators use.

A tie says that the positions of one dimension of a parameter or buffer belong to units; a module that is called twice
is tied twice, which unites the units.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, fx, nn

from prunus.training.shrink.units import WHOLE, Ids, Units


@final
@dataclass(frozen=True)
class Free:
    """A parameter or buffer that the graph uses by itself."""

    name: str


@final
@dataclass(frozen=True, eq=False)
class Sizes:
    """The shape of a tensor, read by the network; ids are the tensor's."""

    ids: Ids


@final
@dataclass(frozen=True)
class Call:
    """A use of a weight. positions: multiply-adds of each, on the example inputs. filters: the dimension of outputs."""

    weight: str
    positions: int
    filters: int = 0


@final
class Walk:
    """The model, and all that was found so far. ties: by tensor name and dimension."""

    def __init__(self, model: nn.Module) -> None:
        self.units = Units()
        self.ties: dict[tuple[str, int], Ids] = {}
        self.widths: dict[str, Ids] = {}  # of a grouped convolution's input, by the weight's name
        self.calls: list[Call] = []
        self.tensors: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        self.modules: dict[str, nn.Module] = dict(model.named_modules())
        self._names = {id(tensor): name for name, tensor in reversed(self.tensors.items())}

    def name(self, tensor: object) -> str | None:
        """The first name of a parameter or buffer; None for other things."""
        return self._names.get(id(tensor)) if isinstance(tensor, Tensor) else None

    def tie(self, tensor: object, dim: int, ids: Ids, where: str) -> None:
        """Position k of `dim` belongs to ids[k]. Tensors that aren't the model's pin them."""
        name = self.name(tensor)
        if name is None:
            self.units.pin(ids, f"{where}: a weight that is no parameter of the model")
            return
        ids = np.broadcast_to(ids, (self.tensors[name].shape[dim],))
        known = self.ties.setdefault((name, dim), ids)
        self.units.unite(known, ids, f"{where}: {name} is used elsewhere as a whole")


@final
class Step:
    """One node of the graph with what went in and came out.

    known: ids by node: an array, Free, Sizes, a list of those, or None for what stays whole or is no tensor.
    """

    def __init__(self, walk: Walk, node: fx.Node, op: str, env: Mapping[fx.Node, Any], known: Mapping[fx.Node, Any]):
        self.walk, self.node, self.op = walk, node, op
        self._env, self._known = env, known
        self.out: Any = None

    @property
    def where(self) -> str:
        """The node and what it does, for messages."""
        return f"{self.node.name} ({self.op})"

    def raw(self, index: int, name: str, default: Any = None) -> Any:
        """An argument as the graph has it: a Node, or a constant."""
        return self.node.args[index] if index < len(self.node.args) else self.node.kwargs.get(name, default)

    def value(self, raw: Any) -> Any:
        """What an argument was in this run."""
        return fx.node.map_arg(raw, lambda node: self._env[node])

    def shape(self, raw: Any) -> tuple[int, ...]:
        """Of an argument that is a tensor."""
        return tuple(self.value(raw).shape)

    def ids(self, raw: Any) -> Ids | None:
        """The ids of an argument; None for what stays whole. A parameter by itself stays whole from now on."""
        known = self._known.get(raw) if isinstance(raw, fx.Node) else None
        if isinstance(known, Free):
            for dim, extent in enumerate(self.walk.tensors[known.name].shape):
                self.walk.tie(self.walk.tensors[known.name], dim, np.full(extent, WHOLE), self.where)
            return None
        return known if isinstance(known, np.ndarray) else None

    def known(self, raw: Any) -> Any:
        """As `ids`, whatever it is."""
        return self._known.get(raw) if isinstance(raw, fx.Node) else None

    def pin(self, raw: Any, why: str) -> None:
        """Everything in an argument stays whole."""
        for node in self.node.all_input_nodes if raw is None else _nodes(raw):
            self._pin(self._known.get(node), node, why)

    def _pin(self, known: Any, node: fx.Node, why: str) -> None:
        if isinstance(known, list):
            for item in known:
                self._pin(item, node, why)
        elif isinstance(known, Free):
            self.ids(node)
        elif isinstance(known, Sizes):
            self.walk.units.pin(known.ids, f"{self.where}: {why}")
        elif known is not None:
            self.walk.units.pin(known, f"{self.where}: {why}")

    def along(self, raw: Any, dim: int) -> Ids:
        """int64[extent]: the ids of an argument along `dim`; WHOLE, and pinned, where they vary along another."""
        ids, shape = self.ids(raw), self.shape(raw)
        extent = shape[dim]
        if ids is None:
            return np.full(extent, WHOLE)
        if any(other != dim % len(shape) and n > 1 for other, n in enumerate(ids.shape)):
            self.pin(raw, "its channels lie elsewhere")
            return np.full(extent, WHOLE)
        return np.broadcast_to(ids.reshape(-1), (extent,))

    def placed(self, ids: Ids, dim: int, n_dims: int | None = None) -> Ids:
        """Ids along one dimension, as those of a tensor like the output."""
        shape = [1] * (self.out.ndim if n_dims is None else n_dims)
        shape[dim] = -1
        return ids.reshape(shape)


def _nodes(raw: Any) -> list[fx.Node]:
    found: list[fx.Node] = []
    fx.node.map_arg(raw, found.append)
    return found


def constant(raw: Any) -> bool:
    """Is an argument written in the network, rather than computed from shapes?"""
    return not isinstance(raw, fx.Node)


def is_tensor(value: Any) -> bool:
    """For arguments of operators, some of which are numbers."""
    return isinstance(value, torch.Tensor)
