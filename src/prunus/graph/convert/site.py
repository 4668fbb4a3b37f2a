"""Where a converter stands: one ONNX node, its constants and shapes, and what it adds to the graph."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from prunus.graph.ir import Node, Shape, Value
from prunus.sparsity.refusal import Refusal

Floats = NDArray[np.float32]
Converted = list[Node] | Refusal


def constant_of(value: ir.Value | None) -> NDArray[Any] | None:
    """The array of a value that is known before any run, else None."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    producer = value.producer()
    if producer is not None and producer.op_type != "Constant":
        return None
    return np.asarray(value.const_value.numpy())


def static_shape(value: ir.Value) -> Shape | None:
    """The shape where every size is known, else None."""
    if value.shape is None or not all(isinstance(n, int) for n in value.shape):
        return None
    return tuple(int(n) for n in value.shape)


def is_used(value: ir.Value) -> bool:
    """Someone reads it, or the network returns it."""
    return bool(value.uses()) or value.is_graph_output()


@final
@dataclass
class Site:
    """A node under conversion. `values` and `constants` collect what its conversion adds."""

    node: ir.Node
    opset: int
    name: str
    taken: Mapping[str, object]
    values: dict[str, Value] = field(default_factory=dict)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)

    def has(self, index: int) -> bool:
        """The input is there."""
        return index < len(self.node.inputs) and self.node.inputs[index] is not None

    def input(self, index: int = 0) -> str:
        """Name of an input."""
        value = self.node.inputs[index]
        assert value is not None and value.name, f"{self.name}: no input {index}"
        return value.name

    def shape(self, index: int = 0) -> Shape:
        """Shape of an input."""
        value = self.node.inputs[index]
        assert value is not None, f"{self.name}: no input {index}"
        shape = static_shape(value)
        assert shape is not None, f"{self.name}: input {index} has no shape"
        return shape

    def constant(self, index: int) -> NDArray[Any] | None:
        """An input's array where it is constant."""
        return constant_of(self.node.inputs[index]) if self.has(index) else None

    def is_constant(self, index: int) -> bool:
        """The input is there and constant."""
        return self.constant(index) is not None

    def flows(self, index: int) -> bool:
        """The input is there and not constant."""
        return self.has(index) and not self.is_constant(index)

    def integers(self, index: int) -> list[int] | None:
        """A constant input as a list of integers."""
        array = self.constant(index)
        return None if array is None else [int(n) for n in np.ravel(array)]

    @property
    def output(self) -> str:
        """Name of the first output."""
        return str(self.node.outputs[0].name)

    @property
    def out_shape(self) -> Shape:
        """Shape of the first output."""
        shape = static_shape(self.node.outputs[0])
        assert shape is not None, f"{self.name}: output has no shape"
        return shape

    def extra_output_used(self) -> bool:
        """An output after the first is used."""
        return any(is_used(value) for value in self.node.outputs[1:])

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute's value, as Python has it."""
        found = self.node.attributes.get(name)
        if found is None:
            return default
        return list(found.value) if isinstance(found.value, Sequence) and not isinstance(found.value, str) else found.value

    def axis(self, name: str, default: int, rank: int) -> int:
        """An attribute that counts axes, made non-negative."""
        return int(self.attribute(name, default)) % max(rank, 1)

    def _free(self, name: str, own: Mapping[str, object]) -> str:
        while name in self.taken or name in own:
            name += "_"
        return name

    def value(self, suffix: str, shape: Sequence[int]) -> str:
        """Declare a float32 tensor between the nodes of this conversion."""
        name = self._free(f"{self.output}.{suffix}", self.values)
        self.values[name] = Value(name, tuple(int(n) for n in shape))
        return name

    def hold(self, index: int, array: NDArray[Any] | None = None, suffix: str = "") -> str:
        """Keep a constant input, or `array` made from it, as a constant of the graph."""
        if array is None:
            array = self.constant(index)
        assert array is not None, f"{self.name}: input {index} isn't constant"
        name = f"{self.name}.{suffix}" if suffix else self.input(index)
        self.constants[name] = np.ascontiguousarray(array, np.float32).reshape(array.shape)
        return name

    def keep(self, suffix: str, array: NDArray[Any]) -> str:
        """Keep an array of the conversion's own making as a constant of the graph."""
        name = self._free(f"{self.name}.{suffix}", self.constants)
        self.constants[name] = np.ascontiguousarray(array, np.float32).reshape(array.shape)
        return name

    def make(self, op: str, inputs: Sequence[str], output: str | None = None, suffix: str = "", **attrs: Any) -> Node:
        """A node of the graph; `suffix` sets apart the nodes that stand beside the main one."""
        name = f"{self.name}.{suffix}" if suffix else self.name
        return Node(op, name, tuple(inputs), (output or self.output,), attrs)


def reshaped(site: Site, name: str, shape: Sequence[int], suffix: str) -> tuple[Node, str]:
    """A reshape of a value before the main node, and its output."""
    out = site.value(suffix, shape)
    return site.make("reshape", [name], out, suffix, shape=tuple(shape)), out
