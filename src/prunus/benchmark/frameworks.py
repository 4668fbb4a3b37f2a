"""Engines that are frameworks: PyTorch, eager and compiled, and TVM."""

from pathlib import Path
from typing import Any, final

from numpy.typing import NDArray

from prunus.benchmark.feeds import Feeds, onnx_inputs, resolve_shapes
from prunus.benchmark.refusals import EngineRefusal, first_line
from prunus.benchmark.sessions import Setting
from prunus.errors import ToolchainError, UnsupportedError


@final
class Torch:
    """PyTorch on the network as Prunus's graph has it, BatchNorm folded: eager, or by torch.compile.

    The number of threads is torch's own for the whole process: an engine opened later changes it for all.
    """

    def __init__(self, model: Path, setting: Setting, compiled: bool = False) -> None:
        from prunus.pruning.torch_inference import open_in_torch

        try:
            self.call = open_in_torch(model, setting.shapes, setting.threads, compiled=compiled)
        except (UnsupportedError, ToolchainError) as error:
            name = "torch-compile" if compiled else "torch"
            raise EngineRefusal(f"{name}: {model.name}: {first_line(error)}") from error

    def run(self, feeds: Feeds) -> list[NDArray[Any]]:
        return self.call(feeds)


@final
class Tvm:
    """TVM: Relax with the default pipeline for this CPU, untuned. Written to its documentation; no release of it could
    be installed where Prunus is tested. Its thread pool is that of the process.
    """

    def __init__(self, model: Path, setting: Setting) -> None:
        import onnx
        import tvm
        from tvm import relax
        from tvm.relax.frontend.onnx import from_onnx

        shapes = resolve_shapes(onnx_inputs(model), setting.shapes, model=str(model))
        native = {
            "mcpu": tvm.target.codegen.llvm_get_system_cpu(),
            "mtriple": tvm.target.codegen.llvm_get_system_triple(),
        }
        tvm.get_global_func("runtime.config_threadpool")(1, setting.threads)
        try:
            network = from_onnx(onnx.load(model), shape_dict={name: list(shape) for name, shape in shapes.items()})
            network = relax.transform.DecomposeOpsForInference()(network)
            compiled = tvm.compile(network, target=tvm.target.Target({"kind": "llvm", **native}))
        except (RuntimeError, ValueError, NotImplementedError) as error:  # TVMError is a RuntimeError
            raise EngineRefusal(f"tvm: {model.name}: {first_line(error)}") from error
        self.names, self.tvm, self.device = list(shapes), tvm, tvm.cpu()
        self.machine = relax.VirtualMachine(compiled, self.device)

    def run(self, feeds: Feeds) -> list[NDArray[Any]]:
        found = self.machine["main"](*(self.tvm.runtime.tensor(feeds[name], self.device) for name in self.names))
        return [part.numpy() for part in (found if hasattr(found, "__len__") else [found])]
