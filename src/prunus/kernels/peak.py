"""What one core of this machine can do at most: multiply-adds on registers, measured."""

from prunus.errors import TargetError
from prunus.kernels.library import isa_for, kernel_library
from prunus.runtime.cpu import describe
from prunus.runtime.native import open_library


def measure(target: str | None = None, cc: str | None = None) -> float:
    """Peak float32 GFLOP/s of one core with the kernels of `target` (None: this CPU's best).

    Raises TargetError: no target runs here. ToolchainError: the library must be built and can't.
    """
    target = target or describe().best_target
    if target is None:
        raise TargetError("no target runs on this CPU")
    return float(open_library(kernel_library(isa_for(target), cc)).peak(1)) / 1e9
