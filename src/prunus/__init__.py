"""Prune trained networks in structured shapes and compile them into fast native CPU code.

Importing this imports numpy and nothing heavier; each public name loads its part on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunus.compiler.compile import compile
    from prunus.errors import PrunusError
    from prunus.runtime.session import Session, load
    from prunus.training.calibrated import prune_onnx
    from prunus.training.pruner import Pruner

__version__ = "0.1.0"
__all__ = ["Pruner", "PrunusError", "Session", "__version__", "compile", "load", "prune_onnx"]

_HOMES = {
    "Pruner": "prunus.training.pruner",
    "PrunusError": "prunus.errors",
    "Session": "prunus.runtime.session",
    "compile": "prunus.compiler.compile",
    "load": "prunus.runtime.session",
    "prune_onnx": "prunus.training.calibrated",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'prunus' has no attribute {name!r}")
    try:
        value = getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        from prunus.extras import missing_package

        raise missing_package(f"prunus.{name}", error) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
