"""A module's graph by torch.fx, with decisions that depend on shapes taken as the example inputs have it.

fx knows no values while it traces. So where a network decides, tracing stops, what there is of the graph is run, and
tracing starts again with the answer.
"""

from typing import final

import torch
from torch import Tensor, fx, nn
from torch.fx.proxy import Proxy, TraceError

from prunus.errors import UnsupportedError

Inputs = Tensor | tuple[Tensor, ...]


def trace(model: nn.Module, inputs: tuple[Tensor, ...] | None = None) -> fx.Graph:
    """The model's graph in the mode that it is in; modules of torch.nn are single nodes.

    Raises UnsupportedError: torch.fx can't trace it: it decides by the values of tensors, or by anything without
    `inputs`.
    """
    answers: list[bool] = []
    while True:
        tracer = _Tracer(answers)
        try:
            return tracer.trace(model)
        except _UndecidedError as stop:
            if inputs is None:
                raise UnsupportedError(f"{_name(model)}: {stop.node.name}: a decision, and no inputs") from None
            answers.append(_decide(model, tracer.graph, stop.node, inputs))
        except (TraceError, TypeError, ValueError, RuntimeError, AttributeError, NameError, IndexError) as error:
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UnsupportedError(f"{_name(model)}: torch.fx can't trace it: {said}") from error


class _UndecidedError(Exception):
    def __init__(self, node: fx.Node) -> None:
        super().__init__(node.name)
        self.node = node


@final
class _Tracer(fx.Tracer):
    def __init__(self, answers: list[bool]) -> None:
        super().__init__()
        self._answers, self._asked = answers, 0

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Also what becomes one convolution, see `prunus.search.branches`."""
        return hasattr(m, "merged") or super().is_leaf_module(m, module_qualified_name)

    def to_bool(self, obj: Proxy) -> bool:
        """The next of the known answers."""
        if self._asked == len(self._answers):
            raise _UndecidedError(obj.node)
        self._asked += 1
        return self._answers[self._asked - 1]


def _decide(model: nn.Module, graph: fx.Graph, node: fx.Node, inputs: tuple[Tensor, ...]) -> bool:
    graph.output(node)
    modes = {module: module.training for module in model.modules()}
    model.eval()  # statistics stay as they are
    try:
        with torch.no_grad():
            value = fx.Interpreter(model, graph=graph).run(*inputs)
    finally:
        for module, mode in modes.items():
            module.training = mode
    if not isinstance(value, bool | int | float | str | None):
        raise UnsupportedError(f"{_name(model)}: {node.name}: decides by the values of a tensor, and can't be traced")
    return bool(value)


def _name(model: nn.Module) -> str:
    return type(model).__name__
