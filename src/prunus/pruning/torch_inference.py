"""A network in torch for timing it beside others: eager, or by torch.compile."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from prunus.errors import ToolchainError
from prunus.graph.read import read
from prunus.pruning.torch_module import to_module

Feeds = Mapping[str, NDArray[Any]]


def open_in_torch(
    model: Path, shapes: Mapping[str, tuple[int, ...]], threads: int, *, compiled: bool
) -> Callable[[Feeds], list[NDArray[Any]]]:
    """A function from inputs by name to the outputs in order, in inference mode.

    `threads` is torch's own number for the whole process. `compiled`: by torch.compile with frozen weights, done here
    and for these shapes; needs a C++ compiler.
    Raises UnsupportedError: as `to_module`. ToolchainError: torch.compile failed.
    """
    graph = read(model, shapes or None, fallback=False)
    names, several = graph.inputs, len(graph.outputs) > 1
    torch.set_num_threads(threads)
    module: Any = to_module(graph).eval().requires_grad_(False)
    if compiled:
        module = torch.compile(module, dynamic=False)

    def run(feeds: Feeds) -> list[NDArray[Any]]:
        with torch.inference_mode():
            results = module(*(torch.from_numpy(np.ascontiguousarray(feeds[name])) for name in names))
        return [result.numpy() for result in (results if several else [results])]

    if compiled:
        from torch._inductor import config

        zeros = {name: np.zeros(graph.values[name].shape, graph.values[name].dtype) for name in names}
        try:
            # as an option of torch.compile, freezing packs no weights (torch 2.13): convolutions take twice as long
            with warnings.catch_warnings(), config.patch(freezing=True):
                warnings.simplefilter("ignore")  # torch's, on its own parts
                run(zeros)
        except (RuntimeError, OSError) as error:  # without a compiler, or one that fails
            raise ToolchainError(f"torch.compile: {_reason(error)}") from error
    return run


def _reason(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
