"""Models of one recurrent node, of any configuration."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from prunus.graph.ir import GATES

DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}


@dataclass(frozen=True)
class Case:
    """An ONNX GRU, LSTM or RNN. `states`: how initial states come: None, "given" or "constant". `outputs`: which are
    named, by index."""

    op: str
    t: int = 4
    n: int = 2
    i: int = 3
    h: int = 5
    direction: str = "forward"
    bias: bool = True
    states: str | None = None
    lengths: tuple[int, ...] | None = None
    lengths_given: bool = False
    peepholes: NDArray[np.float32] | None = None
    outputs: tuple[int, ...] = ()
    attrs: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of the sequence and of a state."""
        d = DIRECTIONS[self.direction]
        if self.attrs.get("layout"):
            return (self.n, self.t, self.i), (self.n, d, self.h)
        return (self.t, self.n, self.i), (d, self.n, self.h)

    def build(self, opset: int = 17) -> tuple[onnx.ModelProto, dict[str, NDArray[Any]]]:
        """The model and inputs for it."""
        rng, d, g = np.random.default_rng(self.seed), DIRECTIONS[self.direction], GATES[self.op.lower()]
        sequence, state = self.shapes()
        states = ("h0", "c0") if self.op == "LSTM" else ("h0",)
        arrays: dict[str, NDArray[Any]] = {
            "x": rng.standard_normal(sequence),
            "w": rng.standard_normal((d, g * self.h, self.i)),
            "r": rng.standard_normal((d, g * self.h, self.h)) / np.sqrt(self.h),
            **({"b": rng.standard_normal((d, 2 * g * self.h))} if self.bias else {}),
            **({key: rng.standard_normal(state) for key in states} if self.states else {}),
        }
        arrays = {key: array.astype(np.float32) for key, array in arrays.items()}
        if self.lengths is not None:
            arrays["lengths"] = np.array(self.lengths, np.int32)
        if self.peepholes is not None:
            arrays["p"] = self.peepholes
        fed = (
            {"x"} | (set(states) if self.states == "given" else set()) | ({"lengths"} if self.lengths_given else set())
        )
        slots = ["x", "w", "r", "b", "lengths", "h0", "c0", "p"]
        names = [slot if slot in arrays else "" for slot in slots]
        while not names[-1]:
            names.pop()
        every = ("y", "y_h", "y_c")[: 3 if self.op == "LSTM" else 2]
        wanted = self.outputs or tuple(range(len(every)))
        outputs = [name if i in wanted else "" for i, name in enumerate(every)]
        node = helper.make_node(
            self.op, names, outputs, name="layer", hidden_size=self.h, direction=self.direction, **self.attrs
        )
        ports = [
            helper.make_tensor_value_info(k, TensorProto.INT32 if k == "lengths" else TensorProto.FLOAT, a.shape)
            for k, a in arrays.items()
            if k in fed
        ]
        results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs if name]
        weights = [numpy_helper.from_array(a, k) for k, a in arrays.items() if k not in fed]
        graph = helper.make_graph([node], "net", ports, results, weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
        return model, {k: a for k, a in arrays.items() if k in fed}


CASES: dict[str, Case] = {
    "gru": Case("GRU"),
    "gru-before-reset": Case("GRU", attrs={"linear_before_reset": 1}),
    "gru-both-ways": Case("GRU", direction="bidirectional", states="given", attrs={"linear_before_reset": 1}),
    "gru-lengths": Case("GRU", direction="bidirectional", lengths=(2, 4), attrs={"clip": 0.5}),
    "gru-empty-sequence": Case("GRU", direction="reverse", lengths=(0, 3), states="constant"),
    "gru-states-only": Case("GRU", outputs=(1,), direction="bidirectional"),
    "gru-without-bias": Case("GRU", bias=False, n=1),
    "gru-one-step": Case("GRU", t=1, n=1, states="given", attrs={"linear_before_reset": 1}),
    "lstm": Case("LSTM"),
    "lstm-both-ways": Case("LSTM", direction="bidirectional", states="given"),
    "lstm-reverse": Case("LSTM", direction="reverse", states="constant", lengths=(4, 1)),
    "lstm-clipped": Case("LSTM", attrs={"clip": 0.4, "input_forget": 1}, outputs=(0, 2)),
    "lstm-without-peepholes": Case("LSTM", peepholes=np.zeros((1, 15), np.float32)),
    "rnn": Case("RNN"),
    "rnn-relu": Case("RNN", direction="bidirectional", attrs={"activations": ["Relu", "Tanh"]}),
    "activations-1": Case("LSTM", attrs={"activations": ["HardSigmoid", "Softsign", "LeakyRelu"]}),
    "activations-2": Case("GRU", attrs={"activations": ["Sigmoid", "Elu"], "activation_alpha": [0.5]}),
    "activations-4": Case("GRU", attrs={"activations": ["Sigmoid", "Softplus"]}),
    "activations-3": Case(
        "LSTM",
        attrs={
            "activations": ["Affine", "ScaledTanh", "ThresholdedRelu"],
            "activation_alpha": [0.5, 0.75, 0.25],
            "activation_beta": [0.25, 1.5],
        },
    ),
}  # fmt: skip
BATCH_FIRST: dict[str, Case] = {  # which onnxruntime refuses
    f"{op.lower()}-{direction}": Case(op, direction=direction, states="given", attrs={"layout": 1})
    for op in ("GRU", "LSTM", "RNN")
    for direction in DIRECTIONS
}
