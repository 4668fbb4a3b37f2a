"""Functions that a recipe names: `package.module:function` or `path/file.py:function`."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prunus.errors import TrainingError


def find_function(text: str, key: str) -> Callable[..., Any]:
    """The function that `text` names. key: of the recipe, for messages.

    Raises TrainingError: no such file, module or function, or it fails when it is imported.
    """
    place, _, name = text.rpartition(":")
    module = _from_file(Path(place), text, key) if place.endswith(".py") else _from_package(place, text, key)
    found = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise TrainingError(f"{key}: {text}: no function {name!r} there")
    function: Callable[..., Any] = found
    return function


def call(function: Callable[..., Any], arguments: dict[str, Any], text: str, key: str) -> Any:
    """What the user's function returns; what it raises becomes one line that says where.

    Raises TrainingError: whatever the function raises.
    """
    try:
        return function(**arguments)
    except Exception as error:  # the user's code may raise anything
        raise TrainingError(f"{key}: {text}: {type(error).__name__}: {error}") from error


def _from_file(path: Path, text: str, key: str) -> Any:
    if not path.is_file():
        raise TrainingError(f"{key}: {text}: no file {path}")
    name = f"_prunus_recipe_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look there
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's code may raise anything
        raise TrainingError(f"{key}: {path}: {type(error).__name__}: {error}") from error
    return module


def _from_package(place: str, text: str, key: str) -> Any:
    try:
        return importlib.import_module(place)
    except Exception as error:  # the user's code may raise anything
        raise TrainingError(f"{key}: {text}: {type(error).__name__}: {error}") from error
