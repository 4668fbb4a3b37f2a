"""An ONNX node as converters see it: attributes as Python values, constants as arrays, static shapes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from prunus.graph.ir import Node, Shape, Value, fresh
from prunus.sparsity.refusal import Refusal


@dataclass
class Conversion:
    """Nodes, values and constants made so far, to which converters add."""

    values: dict[str, Value]
    constants: dict[str, NDArray[Any]]

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """Keep a float32 constant; the name it got."""
        key = name if self.constants.get(name) is array else fresh(name, self.constants)
        self.constants[key] = np.ascontiguousarray(array, np.float32)
        return key

    def value(self, name: str, shape: Shape) -> str:
        """Declare a float32 value between nodes; the name it got."""
        name = fresh(name, self.values)
        self.values[name] = Value(name, shape)
        return name


@dataclass(frozen=True)
class OnnxNode:
    """A node of the normalised model. Optional inputs that are absent are None."""

    op: str
    name: str
    opset: int
    inputs: tuple[ir.Value | None, ...]
    outputs: tuple[ir.Value, ...]
    attrs: dict[str, Any]
    conversion: Conversion = field(repr=False)

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute, or its default."""
        return self.attrs.get(name, default)

    def given(self, index: int) -> bool:
        """Is there an input `index`?"""
        return index < len(self.inputs) and self.inputs[index] is not None

    def const(self, index: int) -> NDArray[Any] | None:
        """Input `index` as an array where it is constant, else None."""
        if not self.given(index):
            return None
        tensor = ir.convenience.get_const_tensor(self.inputs[index])  # type: ignore[arg-type]
        return None if tensor is None else tensor.numpy()

    def shape(self, index: int = 0) -> Shape:
        """Static shape of input `index`."""
        return static_shape(self.inputs[index])  # type: ignore[arg-type]

    def input(self, index: int = 0) -> str:
        """Name of input `index`."""
        return str(self.inputs[index].name)  # type: ignore[union-attr]

    @property
    def output(self) -> str:
        """Name of the first output."""
        return str(self.outputs[0].name)

    @property
    def out_shape(self) -> Shape:
        """Static shape of the first output."""
        return static_shape(self.outputs[0])

    def node(self, op: str, inputs: tuple[str, ...], **attrs: Any) -> list[Node]:
        """A node of the graph that makes this node's outputs."""
        return [Node(op, self.name, inputs, tuple(str(o.name) for o in self.outputs), attrs)]

    def numbers(self, attribute: str, index: int) -> list[Any] | Refusal | None:
        """A list that older opsets give as an attribute and newer ones as input `index`; None if it is absent."""
        if attribute in self.attrs:
            value = self.attrs[attribute]
            return list(value) if isinstance(value, list | tuple) else [value]
        if not self.given(index):
            return None
        array = self.const(index)
        return Refusal(f"{attribute} isn't constant") if array is None else array.ravel().tolist()


Converter = Callable[[OnnxNode], list[Node] | Refusal]


def static_shape(value: ir.Value) -> Shape:
    """The shape with -1 for what isn't known; (-1,) where not even the rank is."""
    if value.shape is None:
        return (-1,)
    return tuple(dim if isinstance(dim, int) else -1 for dim in value.shape)


def dtype_of(value: ir.Value) -> str:
    """numpy name of a value's type, "" where it has none."""
    return value.dtype.numpy().name if value.dtype is not None else ""
