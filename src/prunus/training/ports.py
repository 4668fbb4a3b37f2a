"""Inputs and outputs of a network as flat lists of named tensors, however they are nested in tuples and dicts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, final

from torch import Tensor, nn


def leaves(value: Any) -> tuple[Tensor, ...]:
    """All tensors of a nested value, in order."""
    return tuple(tensor for _, tensor in _walk(value, ""))


def ports(value: Any, letter: str) -> tuple[str, ...]:
    """A name for each of `leaves`: its key where a dict has one, else `letter`, with a number from the second on."""
    names: list[str] = []
    for key, _ in _walk(value, ""):
        name = key
        if not name or name in names:
            name = next(f"{letter}{i or ''}" for i in range(len(names) + 1) if f"{letter}{i or ''}" not in names)
        names.append(name)
    return tuple(names)


def shaped_alike(value: Any, tensors: Sequence[Tensor]) -> Any:
    """`value` with other tensors in the places of its own."""
    return _replace(value, iter(tensors))


def _walk(value: Any, key: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield key, value
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from _walk(part, str(name))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _walk(part, "")


def _replace(value: Any, rest: Iterator[Tensor]) -> Any:
    if isinstance(value, Tensor):
        return next(rest)
    if isinstance(value, Mapping):
        return {name: _replace(part, rest) for name, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_replace(part, rest) for part in value))
    if isinstance(value, list | tuple):
        return type(value)(_replace(part, rest) for part in value)
    return value


@final
class Flat(nn.Module):
    """A network that takes and returns tensors only, as many as its inputs and outputs hold."""

    PREFIX: ClassVar[str] = "network."

    def __init__(self, network: nn.Module, inputs: tuple[Any, ...]) -> None:
        super().__init__()
        self.network = network
        self._inputs = inputs
        self.training = network.training

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """All tensors of what the network makes of `tensors`."""
        return leaves(self.network(*shaped_alike(self._inputs, tensors)))
