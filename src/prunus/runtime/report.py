"""Rows that `Session.profile` and `Session.explain` return."""

from collections.abc import Mapping
from dataclasses import dataclass

from prunus.runtime.program import Op, Program


@dataclass(frozen=True)
class ProfileRow:
    """Time of one node. `sparsity` is the fraction of zeros of its weights; `gflops` counts kept weights only, per
    second; `roofline` is its share of the measured peak. None where a node has no weights."""

    node: str
    op: str
    kernel: str
    scheme: str | None
    sparsity: float | None
    ms: float
    gflops: float | None
    roofline: float | None


@dataclass(frozen=True)
class ExplainRow:
    """Why a layer runs as it does: the kernel chosen, and (kernel, reason) of each that was refused."""

    node: str
    op: str
    kernel: str
    scheme: str | None
    sparsity: float | None
    reason: str
    refused: tuple[tuple[str, str], ...]


def kept_flops(program: Program, op: Op, batch: int) -> float | None:
    """Multiplications and additions with kept weights, per run."""
    if "kept" not in op.attrs:
        return None
    shape = program.shape(op.outputs[0], batch)
    matrix_rows = int(op.attrs["matrix"][0])
    outputs = 1
    for n in shape:
        outputs *= n
    return 2.0 * float(op.attrs["kept"]) * outputs / matrix_rows


def profile_rows(program: Program, times: Mapping[int, float], batch: int, peak: float) -> list[ProfileRow]:
    """A row per operator that took time, in order; `times` in nanoseconds by operator, `peak` in FLOP/s."""
    rows = []
    for i, nanoseconds in sorted(times.items()):
        if i == len(program.ops):
            rows.append(ProfileRow("(outputs)", "copy", "copy", None, None, nanoseconds * 1e-6, None, None))
            continue
        op = program.ops[i]
        flops = kept_flops(program, op, batch)
        rate = None if flops is None or nanoseconds <= 0 else flops / nanoseconds
        rows.append(
            ProfileRow(
                op.name, op.kind, op.attrs.get("kernel_name", op.kind), op.attrs.get("scheme"),
                op.attrs.get("sparsity"), nanoseconds * 1e-6, rate, None if rate is None else rate * 1e9 / peak,
            )
        )  # fmt: skip
    return rows


def explain_rows(program: Program) -> list[ExplainRow]:
    """A row per operator, in order."""
    return [
        ExplainRow(
            op.name, op.kind, op.attrs.get("kernel_name", op.kind), op.attrs.get("scheme"), op.attrs.get("sparsity"),
            op.attrs.get("reason", ""), tuple((kernel, reason) for kernel, reason in op.attrs.get("refused", ())),
        )
        for op in program.ops
    ]  # fmt: skip
