"""The owner's network, from inside: a torch module with its shapes, of a file or given."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prunus.errors import FingerprintError
from prunus.graph.read import read
from prunus.pruning.torch_module import to_module

AT_ONCE = 20  # samples, where a file's batch is free and the network read from it isn't


@final
@dataclass(frozen=True, eq=False)
class Owner:
    """module: in evaluation mode, of one input and one output [n, classes], batch first. shape: of one sample. batch:
    how many samples it takes at a time; None is any number. digest: SHA-256 of the file, or of the weights.
    """

    name: str
    module: nn.Module
    shape: tuple[int, ...]
    classes: int
    batch: int | None
    digest: str
    probabilities: bool = False

    def scores(self, x: Tensor) -> Tensor:
        """[n, classes] that a softmax makes probabilities of."""
        return as_scores(self.module(x), self.probabilities)

    @torch.no_grad()
    def labels(self, x: NDArray[np.float32], most: int = 64) -> NDArray[np.int64]:
        """Its answers, so many samples at a time."""
        size = self.batch or most
        found = [
            self.scores(padded(part, self.batch)).argmax(1)[: len(part)]
            for part in torch.split(torch.from_numpy(x), size)
        ]
        return torch.cat(found).numpy()


def as_scores(outputs: Tensor, probabilities: bool) -> Tensor:
    """Logarithms where a network ends with a softmax, which would leave no gradients."""
    return outputs.clamp(min=1e-12).log() if probabilities else outputs


def padded(x: Tensor, batch: int | None) -> Tensor:
    """Filled up to a fixed batch with its last sample."""
    missing = (batch or len(x)) - len(x)
    return torch.cat([x, x[-1:].expand(missing, *x.shape[1:])]) if missing > 0 else x


def owner_of_file(path: Path, input_shapes: Mapping[str, tuple[int, ...]] | None = None) -> Owner:
    """The network of an ONNX file.

    Raises FingerprintError: it hasn't one input and one output [n, classes]. ModelError, UnsupportedError: as
    `prunus.pruning.torch_module.to_module`.
    """
    graph = read(path, dict(input_shapes or {}) or None, fallback=False)
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        found = f"{len(graph.inputs)} inputs and {len(graph.outputs)} outputs"
        raise FingerprintError(f"{path}: found {found}, expected one of each")
    name = graph.inputs[0]
    if not graph.batch and _symbolic(path):  # what it computes depends on the batch: one of a useful size then
        graph = read(path, {name: (AT_ONCE, *graph.values[name].shape[1:])}, fallback=False)
    shape = graph.values[name].shape
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise FingerprintError(f"{path}: {error.strerror or error}") from error
    return owner_of_module(to_module(graph), shape[1:], path.name, None if graph.batch else shape[0], digest)


def _symbolic(path: Path) -> bool:
    """Is the leading dimension of the first input free in the file?"""
    dims = onnx.load(path, load_external_data=False).graph.input[0].type.tensor_type.shape.dim
    return bool(dims) and dims[0].dim_value <= 0


def owner_of_module(
    module: nn.Module, shape: tuple[int, ...], name: str = "module", batch: int | None = None, digest: str | None = None
) -> Owner:
    """A network that takes [n, *shape]; it is put into evaluation mode.

    Raises FingerprintError: an input that isn't [c, h, w] or [t, f]; an output that isn't [n, classes], two or more.
    """
    module = module.eval().requires_grad_(False)
    if len(shape) not in (2, 3):
        raise FingerprintError(f"{name}: takes inputs of {list(shape)}, expected [c, h, w] or [t, f] for a sample")
    n = batch or 2
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        tried: Any = module(torch.rand(n, *shape, generator=generator))
    if not isinstance(tried, Tensor) or tried.ndim != 2 or len(tried) != n or tried.shape[1] < 2:
        found = list(tried.shape) if isinstance(tried, Tensor) else type(tried).__name__
        raise FingerprintError(f"{name}: answers {found}, expected [{n}, classes] with two or more classes")
    certain = bool((tried >= 0).all()) and torch.allclose(tried.sum(1), torch.ones(n), atol=1e-4)
    return Owner(name, module, tuple(shape), tried.shape[1], batch, digest or _digest(module), certain)


def _digest(module: nn.Module) -> str:
    """Of names and values of all tensors."""
    found = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        found.update(name.encode() + b"\0" + tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def use_threads(threads: int | None) -> None:
    """Torch's own number, for the whole process; None leaves it."""
    if threads is not None:
        torch.set_num_threads(threads)
