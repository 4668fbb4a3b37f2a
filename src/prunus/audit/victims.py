"""Networks under attack, as one kind of thing: inputs to logits, in batches, with gradients or without.

A torch module and an ONNX file have gradients; a compiled artefact, or an ONNX file that can't become a torch module,
answers only, through a session.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from prunus.errors import AuditError, UnsupportedError
from prunus.runtime.session import check_threads

Answers = Callable[[Tensor], Tensor]
AT_ONCE = 1 << 22  # values of inputs that one call gets at most: memory


@final
@dataclass
class Meter:
    """images: how many were answered. gradients: how many of them with a gradient."""

    images: int = 0
    gradients: int = 0


@final
@dataclass(frozen=True, eq=False)
class Victim:
    """A classifier. answers: float32[n, *shape] to logits float32[n, classes]. batch: of every call, None for any."""

    name: str
    answers: Answers
    shape: tuple[int, ...]
    classes: int
    differentiable: bool
    batch: int | None = None
    meter: Meter = field(default_factory=Meter)

    @property
    def at_once(self) -> int:
        """How many images one call should get."""
        return self.batch or max(1, AT_ONCE // max(1, int(np.prod(self.shape))))

    def logits(self, x: Tensor) -> Tensor:
        """float32[n, classes] of float32[n, *shape], in calls of `at_once`.

        Raises AuditError: what comes isn't finite.
        """
        self.meter.images += len(x)
        found = torch.cat([self._call(part) for part in torch.split(x, self.at_once)])
        if not bool(torch.isfinite(found.detach()).all()):
            raise AuditError(f"{self.name}: it answers with values that aren't finite")
        return found

    @torch.no_grad()
    def classify(self, x: Tensor) -> Tensor:
        """int64[n]: the class of each input."""
        return self.logits(x).argmax(1)

    def _call(self, x: Tensor) -> Tensor:
        short = (self.batch or len(x)) - len(x)
        if short:
            return self.answers(torch.cat([x, x[-1:].expand(short, *x.shape[1:])]))[: len(x)]
        return self.answers(x)


def of_module(module: nn.Module, shape: tuple[int, ...], name: str = "model", batch: int | None = None) -> Victim:
    """A copy of a torch module in evaluation mode, with gradients to its input only.

    Raises AuditError: it doesn't answer inputs of that shape with one row of at least 2 numbers each.
    """
    copy = deepcopy(module).eval().requires_grad_(False).float()
    return _checked(name, lambda x: copy(x), shape, True, batch)


def of_onnx(path: Path, name: str | None = None, input_shapes: Mapping[str, tuple[int, ...]] | None = None) -> Victim:
    """An ONNX file as a differentiable victim.

    Raises UnsupportedError: an operator has no gradient here; `of_session` may do. ModelError: not such a file.
    AuditError: not a classifier of one input.
    """
    from prunus.graph.read import read
    from prunus.pruning.torch_module import to_module

    graph = read(path, input_shapes, fallback=False)
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise AuditError(
            f"{path}: {len(graph.inputs)} inputs and {len(graph.outputs)} outputs, expected one of each: images to "
            "classes"
        )
    first, *shape = graph.values[graph.inputs[0]].shape
    module = to_module(graph)
    return of_module(module, tuple(shape), name or path.name, None if graph.batch else first)


def of_session(session: Any, name: str) -> Victim:
    """Whatever runs as onnxruntime's sessions do: answers without gradients.

    Raises AuditError: not a classifier of one input.
    """
    ports, outputs = session.get_inputs(), session.get_outputs()
    if len(ports) != 1 or len(outputs) != 1:
        raise AuditError(
            f"{name}: {len(ports)} inputs and {len(outputs)} outputs, expected one of each: images to classes"
        )
    port = ports[0]
    if port.type != "tensor(float)":
        raise AuditError(f"{name}: input {port.name!r} is {port.type}, expected tensor(float)")
    first, *shape = port.shape
    if not all(isinstance(n, int) for n in shape):
        raise AuditError(f"{name}: input {port.name!r} is {list(port.shape)}, expected sizes but for the first")

    def answers(x: Tensor) -> Tensor:
        found = session.run(None, {port.name: np.ascontiguousarray(x.detach().numpy(), np.float32)})[0]
        return torch.from_numpy(np.array(found, np.float32))

    return _checked(name, answers, tuple(shape), False, first if isinstance(first, int) else None)


def open_victim(
    path: Path,
    threads: int | None = None,
    black_box: bool = False,
    name: str | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Victim:
    """The victim of a file: artefacts, and all where `black_box`, by a session; ONNX files with gradients. name: None
    for the file's. input_shapes: of ONNX files, as `prunus.compile`; names of other models' inputs are passed over.

    Raises UnsupportedError: an ONNX file without gradients; says how to attack it all the same. PrunusError: as reading
    and compiling.
    """
    if path.suffix == ".prunus":
        from prunus.runtime.session import load

        return of_session(load(path, threads), name or path.name)
    shapes = _own(path, input_shapes or {})
    if black_box:
        from prunus.compiler.compile import compile

        return of_session(compile(path, threads=threads, input_shapes=shapes, tune="off"), name or path.name)
    try:
        return of_onnx(path, name, shapes)
    except UnsupportedError as error:
        raise UnsupportedError(f"{path}: no gradients: {error}; with --black-box it is attacked by queries") from error


def _own(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Mapping[str, tuple[int, ...]] | None:
    """Those of the file's own inputs; all where none is, for an error that says which inputs there are."""
    if not shapes:
        return None
    from prunus.graph.load import load_model

    names = {port.name for port in load_model(path).graph.input}
    return {name: shape for name, shape in shapes.items() if name in names} or shapes


def limit_threads(threads: int | None) -> None:
    """Of gradients; None for all physical cores."""
    torch.set_num_threads(check_threads(threads))


def _checked(name: str, answers: Answers, shape: tuple[int, ...], differentiable: bool, batch: int | None) -> Victim:
    try:
        with torch.no_grad():
            found = answers(torch.zeros(batch or 2, *shape))
    except RuntimeError as error:
        raise AuditError(f"{name}: doesn't take inputs of {list(shape)}: {str(error).splitlines()[0]}") from error
    if (
        not isinstance(found, Tensor) or found.ndim < 2 or found.shape[0] != (batch or 2) or found[0].numel() < 2
        or max(found.shape[1:]) != found[0].numel()
    ):  # fmt: skip
        shown = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise AuditError(f"{name}: answers {batch or 2} inputs with {shown}, expected logits [{batch or 2}, classes]")
    classes = found[0].numel()
    shares = bool((found >= 0).all()) and bool(torch.allclose(found.flatten(1).sum(1), torch.ones(()), atol=1e-3))

    def logits(x: Tensor) -> Tensor:
        y = answers(x).flatten(1)
        return y.clamp_min(1e-30).log() if shares else y  # probabilities are logits behind a softmax

    return Victim(name, logits, shape, classes, differentiable, batch)
