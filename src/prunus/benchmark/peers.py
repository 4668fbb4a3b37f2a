"""Engines that have a file format of their own: the ONNX file is converted to it in a temporary folder first.

All run float32 at batch 1, for shapes are fixed by the conversion; what a converter says on refusal is passed on.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from prunus.benchmark.feeds import Feeds, onnx_inputs, resolve_shapes
from prunus.benchmark.refusals import EngineRefusal, first_line
from prunus.benchmark.sessions import Setting

CONVERT_S = 300.0  # a converter that takes longer is given up
# MNN's own command installs a logging package with pip when it is imported, and sends what it did to a server.
MNN_CONVERT = "import sys, _tools; _tools.mnnconvert(sys.argv)"


@final
class Ncnn:
    """ncnn through pnnx, float32 throughout. It knows no batch: the leading 1 is taken off and put back."""

    def __init__(self, model: Path, setting: Setting) -> None:
        import ncnn

        shapes = _shapes("ncnn", model, setting)
        sizes = ",".join(str(list(shape)).replace(" ", "") for shape in shapes.values())
        self.ncnn, self.outputs = ncnn, _output_shapes(model, shapes)
        with tempfile.TemporaryDirectory(prefix="prunus-") as folder:
            shutil.copy(model, Path(folder) / "m.onnx")
            command = [_tool("pnnx"), "m.onnx", f"inputshape={sizes}", "fp16=0"]
            _convert("ncnn", model, command, Path(folder), "m.ncnn.bin")
            self.net = ncnn.Net()
            for flag in ("bf16_storage", "fp16_storage", "fp16_packed", "fp16_arithmetic"):
                setattr(self.net.opt, f"use_{flag}", False)
            self.net.opt.num_threads = setting.threads
            read = (self.net.load_param(f"{folder}/m.ncnn.param"), self.net.load_model(f"{folder}/m.ncnn.bin"))
        if any(read):
            raise EngineRefusal(f"ncnn: {model.name}: an operator that it doesn't have")

    def run(self, feeds: Feeds) -> list[NDArray[Any]]:
        extractor = self.net.create_extractor()
        for i, x in enumerate(feeds.values()):
            extractor.input(f"in{i}", self.ncnn.Mat(np.ascontiguousarray(x[0])))
        return [np.array(extractor.extract(f"out{i}")[1]).reshape(shape) for i, shape in enumerate(self.outputs)]


@final
class Mnn:
    """MNN through its converter; CPU backend, precision "high" (float32)."""

    def __init__(self, model: Path, setting: Setting) -> None:
        import MNN

        shapes = _shapes("mnn", model, setting)
        self.expr, self.outputs = MNN.expr, _output_shapes(model, shapes)
        names = list(shapes), _output_names(model)
        self.variables = [MNN.expr.placeholder(list(shape), MNN.expr.NCHW) for shape in shapes.values()]
        with tempfile.TemporaryDirectory(prefix="prunus-") as folder:
            shutil.copy(model, Path(folder) / "m.onnx")
            command = [
                sys.executable, "-c", MNN_CONVERT, "-f", "ONNX", "--modelFile", "m.onnx", "--MNNModel", "m.mnn",
                "--bizCode", "prunus",
            ]  # fmt: skip
            _convert("mnn", model, command, Path(folder), "m.mnn")
            options = {"backend": 0, "precision": "high", "numThread": setting.threads}
            self.runtime = MNN.nn.create_runtime_manager((options,))
            self.net = MNN.nn.load_module_from_file(f"{folder}/m.mnn", *names, runtime_manager=self.runtime)

    def run(self, feeds: Feeds) -> list[NDArray[Any]]:
        for variable, x in zip(self.variables, feeds.values(), strict=True):
            variable.write(np.ascontiguousarray(x))
        found = self.net.forward(self.variables)
        found = found if isinstance(found, list | tuple) else [found]
        return [
            np.array(self.expr.convert(y, self.expr.NCHW).read()).reshape(shape)
            for y, shape in zip(found, self.outputs, strict=True)
        ]


@final
class LiteRt:
    """LiteRT (TensorFlow Lite) with its XNNPACK kernels, on a file that `tflite.convert` writes."""

    def __init__(self, model: Path, setting: Setting) -> None:
        from ai_edge_litert.interpreter import Interpreter

        from prunus.benchmark.tflite import convert

        shapes = _shapes("litert", model, setting)
        self.interpreter = Interpreter(model_content=convert(model, shapes), num_threads=setting.threads)
        self.interpreter.allocate_tensors()
        self.inputs = [port["index"] for port in self.interpreter.get_input_details()]
        self.outputs = [port["index"] for port in self.interpreter.get_output_details()]

    def run(self, feeds: Feeds) -> list[NDArray[Any]]:
        for index, x in zip(self.inputs, feeds.values(), strict=True):
            nhwc = x.transpose(0, 2, 3, 1) if x.ndim == 4 else x
            self.interpreter.set_tensor(index, np.ascontiguousarray(nhwc))
        self.interpreter.invoke()
        return [_nchw(self.interpreter.get_tensor(index)) for index in self.outputs]


def _nchw(y: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(y.transpose(0, 3, 1, 2)) if y.ndim == 4 else y


def _shapes(engine: str, model: Path, setting: Setting) -> dict[str, tuple[int, ...]]:
    """The shape of each input.

    Raises EngineRefusal: a batch other than 1.
    """
    shapes = resolve_shapes(onnx_inputs(model), setting.shapes, model=str(model))
    for name, shape in shapes.items():
        if not shape or shape[0] != 1:
            raise EngineRefusal(f"{engine}: {model.name}: input {name!r} of shape {list(shape)}: batch 1 only")
    return shapes


def _output_shapes(model: Path, shapes: dict[str, tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Shapes of the outputs for inputs of `shapes`; -1 once where inference can't tell."""
    import onnx

    from prunus.graph.load import load_model

    proto = onnx.ModelProto()
    proto.CopyFrom(load_model(model))
    for value in proto.graph.input:
        if value.name in shapes:
            tensor = onnx.helper.make_tensor_type_proto(value.type.tensor_type.elem_type, shapes[value.name])
            value.type.CopyFrom(tensor)
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(proto).graph.output
    return [tuple(dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim) for value in inferred]


def _output_names(model: Path) -> list[str]:
    from prunus.graph.load import load_model

    return [value.name for value in load_model(model).graph.output]


def _tool(name: str) -> str:
    """A command beside this Python, else of the path."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name) or name


def _convert(engine: str, model: Path, command: Sequence[str], folder: Path, made: str) -> None:
    """Run a converter in `folder`.

    Raises EngineRefusal: it doesn't run, takes too long, or leaves no file `made`.
    """
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", check=False, timeout=CONVERT_S
        )
    except subprocess.TimeoutExpired as error:  # whose own text is the whole command, paths and all
        text = f"{Path(command[0]).name} took longer than {CONVERT_S:g} s to convert it"
        raise EngineRefusal(f"{engine}: {model.name}: {text}") from error
    except OSError as error:
        raise EngineRefusal(f"{engine}: {model.name}: {first_line(error)}") from error
    if not (folder / made).exists():
        said = (done.stderr + done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
        raise EngineRefusal(f"{engine}: {model.name}: {Path(command[0]).name} made no file: {said[-1].strip()}")
