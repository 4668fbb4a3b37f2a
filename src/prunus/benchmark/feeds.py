"""Random inputs for a network, the same for every engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np
from numpy.typing import NDArray

from prunus.errors import FeedError

Feeds = dict[str, NDArray[Any]]

DTYPES = {
    "tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16",
    "tensor(int64)": "int64", "tensor(int32)": "int32", "tensor(int16)": "int16",
    "tensor(int8)": "int8", "tensor(uint8)": "uint8", "tensor(bool)": "bool",
}  # fmt: skip


class Port(Protocol):
    """An input, as onnxruntime and Session describe it; a symbolic dimension is a text."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> Sequence[int | str]: ...
    @property
    def type(self) -> str: ...


@final
@dataclass(frozen=True)
class Input:
    """An input of an ONNX file."""

    name: str
    shape: tuple[int | str, ...]
    type: str


def onnx_inputs(path: Path) -> list[Input]:
    """The inputs of an ONNX file that aren't initialisers.

    Raises ModelError: the file can't be read as ONNX.
    """
    import onnx

    from prunus.graph.load import load_model

    graph = load_model(path).graph
    constants = {tensor.name for tensor in graph.initializer}
    found = []
    for value in graph.input:
        if value.name in constants:
            continue
        tensor = value.type.tensor_type
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
        kind = next((kind for kind, name in DTYPES.items() if name == dtype), f"tensor({dtype})")
        shape = tuple(
            dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else dim.dim_param
            for dim in tensor.shape.dim
        )
        found.append(Input(value.name, shape, kind))
    return found


def resolve_shapes(
    ports: Sequence[Port],
    given: Mapping[str, tuple[int, ...]],
    batch: int | None = None,
    model: str = "model",
) -> dict[str, tuple[int, ...]]:
    """The shape of each input: the given one, else the model's, with `batch` (or 1) for a leading
    symbolic dimension.

    Raises FeedError: a given name or shape that the model doesn't have, another symbolic dimension
    without a value, or a batch where the leading dimension is fixed to another.
    """
    names = [port.name for port in ports]
    for name in given:
        if name not in names:
            raise FeedError(f"{model}: no input {name!r}: the network has {', '.join(names)}")
    shapes = {}
    for port in ports:
        if port.name in given:
            shapes[port.name] = _check(port, given[port.name], model)
            continue
        shape = []
        for i, dim in enumerate(port.shape):
            if isinstance(dim, int):
                shape.append(dim)
            elif i == 0:
                shape.append((batch or 1) * _multiple(dim))
            else:
                raise FeedError(
                    f"{model}: input {port.name!r} has shape {list(port.shape)}: dimension {i} "
                    f"needs a value, as in --input-shape {port.name}=1,3,224,224"
                )
        if batch is not None and shape and isinstance(port.shape[0], int) and shape[0] != batch:
            raise FeedError(f"{model}: input {port.name!r} has a fixed batch of {shape[0]}, asked for {batch}")
        shapes[port.name] = tuple(shape)
    return shapes


def random_feeds(ports: Sequence[Port], shapes: Mapping[str, tuple[int, ...]], seed: int) -> Feeds:
    """Normal random numbers for floats, 0 or 1 for the rest (a valid index almost everywhere)."""
    rng = np.random.default_rng(seed)
    feeds: Feeds = {}
    for port in ports:
        dtype = np.dtype(dtype_of(port))
        shape = shapes[port.name]
        if dtype.kind == "f":
            feeds[port.name] = rng.standard_normal(shape).astype(dtype)
        else:
            feeds[port.name] = rng.integers(0, 2, shape).astype(dtype)
    return feeds


def dtype_of(port: Port) -> str:
    """The numpy dtype name of an input.

    Raises FeedError: it is of a type that arrays don't have here (strings, sequences).
    """
    if port.type not in DTYPES:
        raise FeedError(f"input {port.name!r}: type {port.type}, expected numbers")
    return DTYPES[port.type]


def _multiple(dim: str) -> int:
    """How many rows one of the batch has: 4 of "4*batch", as Session writes it; else 1."""
    factor, star, _ = dim.partition("*")
    return int(factor) if star and factor.isdecimal() else 1


def _check(port: Port, shape: tuple[int, ...], model: str) -> tuple[int, ...]:
    fits = len(shape) == len(port.shape) and all(
        isinstance(dim, str) or dim == n for dim, n in zip(port.shape, shape, strict=True)
    )
    if not fits:
        raise FeedError(f"{model}: input {port.name!r}: shape {list(shape)} given, expected {list(port.shape)}")
    return shape
