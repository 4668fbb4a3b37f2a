"""Pruned recurrent layers beside dense engines: two layers of 1024, 39 inputs, batch 1, states fed so that nobody folds
them.

    python -m bench.recurrent [--only TEXT ...] [--threads 1 2] [--quick] [--again] [--list]

Each row runs in a process of its own and is appended to bench/results/recurrent.jsonl; one that was measured at this
commit is skipped unless --again. Exit status: 0 all pass, 1 a row is short or failed.
"""

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import prunus
from bench import store
from bench.child import print_row, run_child
from prunus.benchmark.agreement import difference
from prunus.benchmark.engines import OnnxRuntime, missing, open_engine
from prunus.benchmark.refusals import EngineRefusal
from prunus.benchmark.sessions import Setting
from prunus.benchmark.timing import ratio_of_rounds, time_interleaved
from prunus.runtime.quick import Quick
from prunus.runtime.roofline import weight_bytes

RESULTS = store.RESULTS / "recurrent.jsonl"
PEERS = ("onnxruntime", "openvino", "ncnn", "mnn", "torch")
# largest difference over largest output, against onnxruntime, whose weights aren't rounded
ERRORS = {"fp32": 1e-4, "bf16": 1e-2, "int8": 1e-2}
GATES = {"GRU": 3, "LSTM": 4}


@dataclass(frozen=True)
class Goal:
    """A row: times as fast as the fastest peer that it must be, through `Session.run`, and by the executor alone; None:
    just to know. Peers compute in float32."""

    op: str
    scheme: str | None
    rate: float
    steps: int
    least: float | None
    executor: float | None = None
    precision: str = "fp32"

    @property
    def name(self) -> str:
        zeros = f"{self.scheme} {self.rate:g}x" if self.scheme else "dense"
        precision = f", {self.precision}" if self.precision != "fp32" else ""
        return f"{self.op} 2x1024 {zeros}, {self.steps} step{'s' * (self.steps > 1)}{precision}"


GOALS = (
    *(
        Goal("GRU", scheme, rate, 1, least, executor)
        for scheme in ("bcr:16x128", "block-column:16x128")
        for rate, least, executor in ((10, 25, None), (29, 80, None), (103, 120, None), (245, 150, 250))
    ),
    Goal("GRU", None, 1, 1, 0.97),
    Goal("LSTM", "bcr:16x128", 10, 1, 25),
    Goal("LSTM", "block-column:16x128", 10, 1, 25),
    Goal("GRU", "bcr:16x128", 10, 100, 10),
    Goal("GRU", "block-column:16x128", 10, 100, 10),
    *(
        Goal("GRU", scheme, rate, steps, None, None, precision)
        for precision in ("bf16", "int8")
        for scheme, rate, steps in (
            ("bcr:16x128", 10, 1), ("block-column:16x128", 10, 1), (None, 1, 1), ("bcr:16x128", 10, 100),
            ("block-column:16x128", 10, 100),
        )
    ),
)  # fmt: skip


def model_of(op: str, steps: int, inputs: int = 39, hidden: int = 1024, layers: int = 2) -> onnx.ModelProto:
    """A stack with initial states as inputs; weights uniform in +-1 / sqrt(hidden), as torch draws them."""
    rng, x = np.random.default_rng(2108), "x"
    ports = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [steps, 1, inputs])]
    nodes, weights = [], [numpy_helper.from_array(np.array([1], np.int64), "axis")]
    for layer in range(layers):
        size, names = inputs if layer == 0 else hidden, []
        rows = GATES[op] * hidden
        for key, shape in (("w", (1, rows, size)), ("r", (1, rows, hidden)), ("b", (1, 2 * rows))):
            array = rng.uniform(-1, 1, shape) / np.sqrt(hidden)
            names.append(f"{key}{layer}")
            weights.append(numpy_helper.from_array(array.astype(np.float32), names[-1]))
        states = [f"{letter}{layer}" for letter in ("h", "c")[: 1 + (op == "LSTM")]]
        ports += [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, hidden]) for name in states]
        attrs = {"linear_before_reset": 1} if op == "GRU" else {}
        nodes.append(
            helper.make_node(
                op, [x, *names, "", *states], [f"y{layer}"], name=f"{op}{layer}", hidden_size=hidden, **attrs
            )
        )
        x = f"out{layer}"
        nodes.append(helper.make_node("Squeeze", [f"y{layer}", "axis"], [x]))
    out = helper.make_tensor_value_info(x, TensorProto.FLOAT, [steps, 1, hidden])
    graph = helper.make_graph(nodes, op, ports, [out], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def feeds_of(model: onnx.ModelProto) -> dict[str, Any]:
    """Normal inputs; states of a fifth."""
    rng = np.random.default_rng(0)
    shapes = {port.name: [d.dim_value for d in port.type.tensor_type.shape.dim] for port in model.graph.input}
    return {
        name: rng.standard_normal(shape, np.float32) * np.float32(1 if name == "x" else 0.2)
        for name, shape in shapes.items()
    }


def measure(goal: Goal, threads: int, time_s: float) -> store.Row:
    """Prunus, its executor alone and the peers in turns; a peer that is wrong isn't timed."""
    model, left_out, errors = model_of(goal.op, goal.steps), {}, {}
    if goal.scheme:
        model = prunus.prune_onnx(model, scheme=goal.scheme, sparsity=1 - 1 / goal.rate)
    feeds = feeds_of(model)
    session = prunus.compile(model, threads=threads, tune="full", precision=goal.precision)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "net.onnx"
        onnx.save(model, source)
        expected = OnnxRuntime(source, Setting(threads)).run(feeds)
        outputs = {"prunus": session.run(None, feeds)}
        calls: dict[str, Any] = {"prunus": lambda: session.run(None, feeds)}
        with session._turns.take() as stream:
            if isinstance(stream.quick, Quick):
                calls["executor"] = stream.quick.again
        for peer in PEERS:
            if absent := missing(peer):
                left_out[peer] = str(absent)
                continue
            try:
                engine = open_engine(peer, source, Setting(threads))
                outputs[peer] = engine.run(feeds)
            except EngineRefusal as refusal:
                left_out[peer] = str(refusal)
                continue
            calls[peer] = lambda engine=engine: engine.run(feeds)
        for name, found in outputs.items():
            errors[name] = difference(found, expected)
            if not errors[name] <= ERRORS[goal.precision if name == "prunus" else "fp32"]:
                assert name != "prunus", f"prunus differs from onnxruntime by {errors[name]:.1e}"
                left_out[name] = f"{name}: differs from onnxruntime by {errors[name]:.1e}"
                del calls[name]
        times = time_interleaved(calls, time_s, min(1.0, time_s))
    own = {name: {} for name in ("prunus", "executor") if name in times}
    for name in own:
        for peer in times.keys() - {"prunus", "executor"}:
            ratio = ratio_of_rounds(times[name].rounds, times[peer].rounds)
            own[name][peer] = [round(v, 3) for v in (ratio.lower, ratio.median, ratio.upper)]
    program = session.program
    values = sum(a.nbytes for name, a in program.constants.items() if name.endswith(".values"))
    encoded = sum(weight_bytes(program, op) for op in program.ops)
    biases = sum(a.nbytes for name, a in program.constants.items() if name.endswith(".bias"))
    return {
        "us": {name: round(t.median_s * 1e6, 2) for name, t in times.items()}, "ratios": own, "errors": errors,
        "left_out": left_out, "index_share": round((encoded - values - biases) / values, 4),
        "kernels": [row.kernel for row in session.explain() if row.op == "recurrent"],
    }  # fmt: skip


def verdict(goal: Goal, row: store.Row) -> tuple[bool, str]:
    """Whether a row reaches its goal, and what to say of it."""
    if "failure" in row:
        return False, str(row["failure"])
    good, said = True, []
    for name, least in (("prunus", goal.least), ("executor", goal.executor)):
        ratios = row["ratios"].get(name)
        if not ratios or (least is None and name == "executor"):
            continue
        peer = min(ratios, key=lambda peer: ratios[peer][1])
        lower, median, upper = ratios[peer]
        text = f"{name} {row['us'][name]:.1f} us, {median:.2f} ({lower:.2f} to {upper:.2f}) x {peer}"
        if least is not None:
            good &= median >= least
            text += f", at least {least:g}: " + ("pass" if median >= least else "short")
        said.append(text)
    return good, "; ".join([*said, f"indices {row['index_share']:.1%} of values", *row["kernels"]])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="rows whose name holds one of these")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--time", type=float, default=4.0, help="seconds of timed calls per engine")
    parser.add_argument("--quick", action="store_true", help="few calls; nothing is written")
    parser.add_argument("--again", action="store_true", help="also rows measured at this commit")
    parser.add_argument("--list", action="store_true", help="print the names of the rows")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        print_row(lambda: measure(GOALS[arguments.child], arguments.threads[0], arguments.time))
        return 0
    chosen = [goal for goal in GOALS if any(text in goal.name for text in arguments.only)]
    if arguments.list:
        print("\n".join(goal.name for goal in chosen))
        return 0
    good, stamp, time_s = True, store.stamp(), 0.2 if arguments.quick else arguments.time
    for goal, threads in [(row, n) for row in chosen for n in arguments.threads]:
        key = f"{goal.name}, {threads} threads"
        if not arguments.again and store.is_measured(store.read(RESULTS), key, stamp["commit"]):
            print(f"{key}: measured at {stamp['commit']}", flush=True)
            continue
        index = str(GOALS.index(goal))
        found = run_child("bench.recurrent", index, "--threads", str(threads), "--time", str(time_s))
        row = {"key": key, "threads": threads, "quick": arguments.quick} | found
        if not arguments.quick:
            store.append(RESULTS, stamp | row)
        passes, text = verdict(goal, row)
        print(f"{key}: {text}", flush=True)
        good &= passes
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
