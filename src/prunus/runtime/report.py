"""Rows that `Session.profile` and `Session.explain` return."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from prunus.runtime.program import Op, Program
from prunus.runtime.roofline import Bound, Machine, Roofline, roofline, weight_bytes


@dataclass(frozen=True)
class ProfileRow:
    """Time of one node. `sparsity` is the fraction of zeros of its weights; `gflops` counts kept weights only, per
    second; `of_peak` is its share of the measured peak of arithmetic, `roofline` the share of the time that the node
    would take at best (see `roofline.py`), and `bound` what sets that. None where a node has no weights."""

    node: str
    op: str
    kernel: str
    scheme: str | None
    sparsity: float | None
    ms: float
    gflops: float | None
    of_peak: float | None
    roofline: float | None
    bound: Bound | None


@dataclass(frozen=True)
class ExplainRow:
    """Why a layer runs as it does: the kernel chosen, and (kernel, reason) of each that was refused. `roofline_ms` is
    the least time on this machine, `roofline` its share of what tuning measured (None where it didn't), `bound` what
    sets it."""

    node: str
    op: str
    kernel: str
    scheme: str | None
    sparsity: float | None
    reason: str
    refused: tuple[tuple[str, str], ...]
    roofline_ms: float | None
    roofline: float | None
    bound: Bound | None


def kept_flops(program: Program, op: Op, batch: int) -> float | None:
    """Multiplications and additions with kept weights, per run."""
    if "kept" not in op.attrs:
        return None
    shape = program.shape(op.outputs[0], batch)
    rows = shape[1] if len(shape) == 4 else shape[-1]
    return 2.0 * float(op.attrs["kept"]) * float(np.prod(shape, dtype=np.float64)) / rows


def rooflines(program: Program, batch: int, threads: int, limits: Machine) -> dict[int, Roofline]:
    """By operator, for those with weights."""
    all_weights = sum(weight_bytes(program, op) for op in program.ops)
    flops = {i: kept_flops(program, op, batch) for i, op in enumerate(program.ops)}
    return {
        i: roofline(program, program.ops[i], batch, threads, limits, n, all_weights)
        for i, n in flops.items()
        if n is not None
    }


def profile_rows(
    program: Program, times: Mapping[int, float], batch: int, threads: int, limits: Machine
) -> list[ProfileRow]:
    """A row per operator that took time, in order; `times` in nanoseconds by operator."""
    best = rooflines(program, batch, threads, limits)
    rows = []
    for i, nanoseconds in sorted(times.items()):
        if i == len(program.ops):
            rows.append(ProfileRow("(outputs)", "copy", "copy", None, None, nanoseconds * 1e-6, None, None, None, None))
            continue
        op = program.ops[i]
        flops = kept_flops(program, op, batch)
        rate = peak = share = None
        if flops is not None and nanoseconds > 0:
            rate = flops / nanoseconds
            peak = rate * 1e9 / (limits.operations[program.tensors[op.inputs[0]].pack] * threads)
            share = best[i].seconds * 1e9 / nanoseconds
        rows.append(
            ProfileRow(
                op.name, op.kind, op.attrs.get("kernel_name", op.kind), op.attrs.get("scheme"),
                op.attrs.get("sparsity"), nanoseconds * 1e-6, rate, peak, share, best[i].bound if i in best else None,
            )
        )  # fmt: skip
    return rows


def explain_rows(program: Program, threads: int, limits: Machine) -> list[ExplainRow]:
    """A row per operator, in order."""
    best = rooflines(program, 1, threads, limits)
    names = [op.name for op in program.ops]
    together = {
        i: f"depth first from {names[chain.first]} to {names[chain.last]}, {chain.rows} rows at a time"
        for chain in program.chains
        for i in range(chain.first, chain.last + 1)
    }
    rows = []
    for i, op in enumerate(program.ops):
        measured = op.attrs.get("measured_ms")
        least = best[i].seconds * 1e3 if i in best else None
        rows.append(
            ExplainRow(
                op.name, op.kind, op.attrs.get("kernel_name", op.kind), op.attrs.get("scheme"),
                op.attrs.get("sparsity"), "; ".join(filter(None, (op.attrs.get("reason"), together.get(i)))),
                tuple((kernel, reason) for kernel, reason in op.attrs.get("refused", ())), least,
                None if measured is None or least is None else least / measured, best[i].bound if i in best else None,
            )
        )  # fmt: skip
    return rows
