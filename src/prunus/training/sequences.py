"""Which axes of a recurrent network's inputs and outputs are its time and its batch, and inputs of other sizes to try
an exported file with.

torch's own exporter writes GRU, LSTM and RNN right, at any length and batch (tests/training/test_sequences.py holds it
to that), but what is around them may bake sizes in: so the file is run at other sizes too, and an axis along which it
answers otherwise than torch is fixed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

Call = Callable[[Sequence[Tensor]], Sequence[Tensor]]
Axes = tuple[Mapping[int, str], ...]  # per tensor: axis -> what it is
LAYERS = (nn.GRU, nn.LSTM, nn.RNN)
_MORE = {"time": 3, "batch": 1}
# by a network that is fed sizes that it doesn't take
_RAISED = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError)


@final
@dataclass(frozen=True, eq=False)
class Way:
    """A way to export: the free axes of inputs and outputs, and inputs of other sizes, with torch's answer, to try the
    file with; none where no axis is free."""

    inputs: Axes
    outputs: Axes
    trial: tuple[Tensor, ...] = ()
    expected: tuple[Tensor, ...] = ()


def is_recurrent(model: nn.Module) -> bool:
    """Is there a GRU, LSTM or RNN in it?"""
    return any(isinstance(module, LAYERS) for module in model.modules())


@torch.no_grad()
def ways(model: nn.Module, call: Call, tensors: Sequence[Tensor]) -> tuple[Way | None, ...]:
    """The ways to export a recurrent network, most free axes first; the last one has none.

    call: the network, from flat inputs to flat outputs. The first input is the sequence, [t, n, ...] or with
    `batch_first` [n, t, ...]; one of the shape of a layer's state has the batch second. A network that doesn't take its
    inputs has one way, of which nothing is known.
    """
    named = [_axes(model, tensor, first=index == 0) for index, tensor in enumerate(tensors)]
    answers = _try(call, tensors)
    if not tensors or answers is None:
        return (None,)
    grown = {label: _try(call, _grow(tensors, named, {label})) for label in _MORE}
    free = [label for label, found in grown.items() if found is not None]
    found = []
    for labels in [set(free), *({label} for label in free if len(free) > 1)]:
        trial = _grow(tensors, named, labels)
        expected = _try(call, trial)
        if labels and expected is not None:
            inputs = tuple({axis: label for axis, label in axes.items() if label in labels} for axes in named)
            outputs = tuple(
                {axis: label for label in labels for axis in _changed(answer, (grown[label] or answers)[index])}
                for index, answer in enumerate(answers)
            )
            found.append(Way(inputs, outputs, trial, tuple(expected)))
    return (*found, Way(({},) * len(tensors), ({},) * len(answers)))


def _axes(model: nn.Module, tensor: Tensor, first: bool) -> Mapping[int, str]:
    layers = [module for module in model.modules() if isinstance(module, LAYERS)]
    states = {(m.num_layers * (1 + m.bidirectional), size) for m in layers for size in (m.hidden_size, m.proj_size)}
    if not first and tensor.ndim == 3 and (tensor.shape[0], tensor.shape[2]) in states:
        return {1: "batch"}
    if tensor.ndim == 1:
        return {0: "batch"}
    names = ("batch", "time") if layers[0].batch_first else ("time", "batch")
    return dict(enumerate(names[: tensor.ndim]))


def _grow(tensors: Sequence[Tensor], named: Sequence[Mapping[int, str]], labels: set[str]) -> tuple[Tensor, ...]:
    """Longer along the axes of these labels: the last entries come again, the other way round."""
    grown = []
    for tensor, axes in zip(tensors, named, strict=True):
        for axis, label in axes.items():
            if label in labels:
                size = tensor.shape[axis]
                places = torch.arange(size + _MORE[label]) % (2 * size)
                places = torch.where(places < size, places, 2 * size - 1 - places)
                tensor = tensor.index_select(axis, places.to(tensor.device))
        grown.append(tensor)
    return tuple(grown)


def _try(call: Call, tensors: Sequence[Tensor]) -> Sequence[Tensor] | None:
    try:
        return call(tensors)
    except _RAISED:
        return None


def _changed(a: Tensor, b: Tensor) -> list[int]:
    """The axes along which sizes differ."""
    return [axis for axis, (x, y) in enumerate(zip(a.shape, b.shape, strict=True)) if x != y]
