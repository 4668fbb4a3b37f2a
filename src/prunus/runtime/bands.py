"""Which rows of which tensors a chain computes when, if it goes depth first: band by band of its output's rows, and for
each band no more rows of the tensors in between than it needs and nobody computed before.

Source: Alwani et al., "Fused-layer CNN accelerators", MICRO 2016; Goetschalckx and Verhelst, "Breaking high-resolution
CNN bandwidth barriers with enhanced depth-first execution", JETCAS 9 (2019). Parts for threads compute the rows that
overlap twice, as there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from prunus.runtime.program import Op

Span = tuple[int, int]  # rows from the first to before the second


@dataclass(frozen=True)
class Work:
    """Rows of an operator's output that one band computes; `op` counts from the chain's first."""

    op: int
    rows: Span


@dataclass(frozen=True)
class Band:
    """What is computed in turn. Of each tensor inside the chain: `base`, the lowest row that is still needed when the
    band begins, and the row up to which it has been computed `before` (absent: nothing) and `after`."""

    works: tuple[Work, ...]
    base: Mapping[str, int]
    before: Mapping[str, int]
    after: Mapping[str, int]


def first_row_read(op: Op, row: int) -> int:
    """The first row of the first input that a row of the output needs, padding aside."""
    return max(row * int(op.attrs["strides"][0]) - int(op.attrs["pads"][0]), 0)


def rows_read(op: Op, rows: Span, height: int) -> Span:
    """The rows of the first input, which has `height`, that some rows of the output need, padding aside."""
    reach = (op.attrs["kernel"][0] - 1) * op.attrs.get("dilations", (1, 1))[0] + 1
    last = (rows[1] - 1) * op.attrs["strides"][0] - op.attrs["pads"][0] + reach
    return min(first_row_read(op, rows[0]), height), min(max(last, 0), height)


def bands(ops: Sequence[Op], heights: Mapping[str, int], rows: int, part: Span) -> Iterator[Band]:
    """The bands of a part of a chain's output rows, `rows` each. `heights` of all tensors; the second input of a
    convolution is read row by row as the output is written."""
    inside = {op.outputs[0] for op in ops[:-1]}
    made: dict[str, int] = {}
    for start in range(part[0], part[1], rows):
        ends: dict[str, int] = {ops[-1].outputs[0]: min(start + rows, part[1])}
        starts: dict[str, int] = {ops[-1].outputs[0]: start}
        works, base = [], dict[str, int]()
        for number in range(len(ops) - 1, -1, -1):
            op, out = ops[number], ops[number].outputs[0]
            first = max(made.get(out, starts[out]), base.get(out, 0))  # strides may leave rows out
            last = max(ends.get(out, first), first)
            works.append(Work(number, (first, last)))
            height = heights[op.inputs[0]]
            low = min(first_row_read(op, first), height)
            reads = [(op.inputs[0], low, rows_read(op, (first, last), height)[1])]
            reads += [(name, first, last) for name in op.inputs[1:]]
            for name, low, high in reads:
                if name in inside:
                    base[name] = min(base.get(name, low), low)
                    starts[name] = min(starts.get(name, low), low)
                    ends[name] = max(ends.get(name, 0), high if last > first else 0)
        before, made = made, {ops[work.op].outputs[0]: work.rows[1] for work in works}
        yield Band(tuple(work for work in reversed(works) if work.rows[1] > work.rows[0]), base, before, made)


def parts(height: int, n_parts: int, rows: int) -> list[Span]:
    """The rows of a chain's output shared out over threads, in whole bands as far as that goes."""
    n_bands = -(-height // rows)
    n_parts = max(1, min(n_parts, n_bands))
    ends = [min(n_bands * i // n_parts * rows, height) for i in range(n_parts + 1)]
    return list(pairwise(ends))
