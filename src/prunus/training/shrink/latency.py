"""How long a network takes on this machine, as a callable for `roll_back`: exported, compiled, and run for a while."""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from prunus.training.shrink.trace import Inputs

Engine = Literal["prunus", "onnxruntime"]
WARM, AT_LEAST = 3, 10  # calls


def measured(example_inputs: Inputs, engine: Engine = "prunus", seconds: float = 0.3) -> Callable[[nn.Module], float]:
    """A function from a network to seconds per call: the median over `seconds`, on one thread, of the example inputs.

    Exporting raises as `export_onnx`, compiling as `prunus.compile`.
    """
    inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else example_inputs
    feeds = {f"x{n or ''}": np.ascontiguousarray(x.detach().cpu().numpy()) for n, x in enumerate(inputs)}

    def latency(model: nn.Module) -> float:
        from prunus.training.export import export_onnx

        with TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            export_onnx(model, path, inputs)
            run = _opened(path.read_bytes(), engine, {name: feed.shape for name, feed in feeds.items()})
        for _ in range(WARM):
            run(None, feeds)
        times, end = list[float](), time.perf_counter() + seconds
        while len(times) < AT_LEAST or time.perf_counter() < end:
            start = time.perf_counter()
            run(None, feeds)
            times.append(time.perf_counter() - start)
        return median(times)

    return latency


def _opened(model: bytes, engine: Engine, shapes: dict[str, tuple[int, ...]]) -> Callable[..., Any]:
    if engine == "prunus":
        from prunus.compiler.compile import compile

        return compile(model, threads=1, input_shapes=shapes, tune="off").run
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    run: Callable[..., Any] = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"]).run
    return run
