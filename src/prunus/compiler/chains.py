"""Which operators to compute depth first, band by band: where tensors in between don't fit a near cache, and measuring
shows that it pays."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunus.compiler.latency import Latencies, as_json
from prunus.runtime.arrange import arrange
from prunus.runtime.bands import bands
from prunus.runtime.layout import Layout
from prunus.runtime.native import Bound, Library, Memory, Pool
from prunus.runtime.plan import make_plan
from prunus.runtime.program import Chain, Op, Program, outside_tensors

ROUNDS = 7  # of the whole network for each candidate, in turns; the first one warms up
AGAIN = 9  # rounds of the network with the chains chosen and without
BUDGET_S = 0.02  # under which times are kept
LEAST_GAIN = 0.03  # of the operators' time; less may be noise
MOST_ENDS = 6  # of chains from one beginning
SHARES = (1.0, 3.0)  # of the second-level cache that line buffers may take: the next level often is near enough
ENCODINGS = ("rows", "blocks", "depthwise")


@dataclass(frozen=True)
class Bench:
    """What candidates are measured with; `l2_bytes` of one core."""

    library: Library
    pool: Pool
    threads: int
    l2_bytes: int
    latencies: Latencies | None = None
    progress: Callable[[object], None] | None = None


def find_chains(program: Program, constants: NDArray[Any], bench: Bench) -> tuple[Chain, ...]:
    """The chains that make the program faster, in order."""
    layouts, views = arrange(program, 1)
    able = [_able(op, layouts, views, program) for op in program.ops]
    gains: dict[Chain, float] = {}
    for first, op in enumerate(program.ops):
        if not able[first] or _n_bytes(op, layouts) < bench.l2_bytes:
            continue
        options = [
            Chain(first, last, rows, parts)
            for last in _ends(program, able, first)
            for rows, parts in _sizes(program.ops[first : last + 1], layouts, bench)
        ]
        if options:
            gains |= _gains(program, constants, options, bench)
    chosen = best_apart(gains)
    return chosen if chosen and _still_pays(program, constants, chosen, bench) else ()


def best_apart(gains: Mapping[Chain, float]) -> tuple[Chain, ...]:
    """Chains that share no operator, in order, with the greatest sum of gains; those that gain nothing aren't taken."""
    best: list[tuple[float, tuple[Chain, ...]]] = [(0.0, ())]  # of the operators before the first, the second, ...
    for end in range(1, max((chain.last for chain in gains), default=-1) + 2):
        best.append(best[-1])
        for chain, gain in gains.items():
            if chain.last == end - 1 and best[chain.first][0] + gain > best[end][0]:
                best[end] = (best[chain.first][0] + gain, (*best[chain.first][1], chain))
    return best[-1][1]


def chain_refusal(chain: Chain, program: Program, behind: int) -> str | None:
    """Why operators can't be computed depth first; None when they can. `behind`: the last one of the chain before."""
    if chain.rows < 1:
        return f"rows {chain.rows}, expected at least 1"
    if not behind < chain.first < chain.last:
        return "expected operators in the order of the network, in one chain each"
    layouts, views = arrange(program, 1)
    for op in program.ops[chain.first : chain.last + 1]:
        if not _able(op, layouts, views, program):
            return f"{op.name!r}: expected pooling or a convolution in rows, blocks or depthwise, of planes of float32"
    inside = {op.outputs[0] for op in program.ops[chain.first : chain.last]}
    outside = {n for op in program.ops[chain.last + 1 :] for n in op.inputs} | set(program.outputs)
    return f"{min(inside & outside)!r} is read behind it" if inside & outside else None


def _able(op: Op, layouts: Mapping[str, Layout], views: Mapping[str, Any], program: Program) -> bool:
    """An operator that can be computed in bands: planes of float32 at least a vector wide, rows from rows."""
    if op.kind == "conv":
        if op.attrs["choice"]["encoding"] not in ENCODINGS:
            return False
    elif op.kind not in ("max_pool", "avg_pool"):
        return False
    names = (*op.inputs, *op.outputs)
    planes = all(len(layouts[n].shape) == 4 and layouts[n].shape[3] >= program.lanes for n in names)
    return planes and not layouts[op.outputs[0]].contiguous and not any(
        n in views or program.tensors[n].pack > 1 for n in names
    )  # fmt: skip


def _n_bytes(op: Op, layouts: Mapping[str, Layout]) -> int:
    return 4 * int(np.prod(layouts[op.outputs[0]].shape))


def _ends(program: Program, able: Sequence[bool], first: int) -> Iterator[int]:
    """Where a chain from `first` may end: what is made before is read by nobody behind it."""
    last_use = {name: i for i, op in enumerate(program.ops) for name in op.inputs}
    last_use |= dict.fromkeys(program.outputs, len(program.ops))
    needed, n = first, 0
    for last in range(first + 1, len(program.ops)):
        if not able[last] or n == MOST_ENDS:
            return
        needed = max(needed, last_use.get(program.ops[last - 1].outputs[0], last))
        if needed <= last:
            yield last
            n += 1


def _sizes(ops: Sequence[Op], layouts: Mapping[str, Layout], bench: Bench) -> Iterator[tuple[int, int]]:
    """Rows of bands whose line buffers take about so much of the cache, and parts."""
    height = layouts[ops[-1].outputs[0]].shape[2]
    most = -(-height // bench.threads)
    seen = set()
    for share in SHARES:
        rows = next((r for r in (32, 24, 16, 12, 8, 6, 4, 3, 2) if _held(ops, layouts, r) <= share * bench.l2_bytes), 1)
        seen.add(min(rows, most))
    yield from ((rows, bench.threads) for rows in sorted(seen))


def _held(ops: Sequence[Op], layouts: Mapping[str, Layout], rows: int) -> int:
    """Bytes of the line buffers of a chain, and of the output's band."""
    heights = {name: layouts[name].shape[2] for op in ops for name in (*op.inputs, *op.outputs)}
    most: dict[str, int] = {}
    for band in bands(ops, heights, rows, (0, heights[ops[-1].outputs[0]])):
        for name, base in band.base.items():
            most[name] = max(most.get(name, 0), band.after[name] - base)
    most[ops[-1].outputs[0]] = rows
    return sum(4 * n * layouts[name].shape[1] * layouts[name].pitch for name, n in most.items())


def _gains(program: Program, constants: NDArray[Any], options: Sequence[Chain], bench: Bench) -> dict[Chain, float]:
    """Seconds that each chain saves, 0 where that may be noise."""
    times = _times(program, constants, options, bench)
    gains = {}
    for chain, (before, after) in times.items():
        gains[chain] = before - after if before - after >= LEAST_GAIN * before else 0.0
    best = max(options, key=gains.__getitem__)
    if bench.progress:
        names = f"{program.ops[best.first].name} to {program.ops[best.last].name}"
        bench.progress(f"{names} depth first: {times[best][1] * 1e3:.3f} ms for {times[best][0] * 1e3:.3f} ms")
    return gains


def _times(
    program: Program, constants: NDArray[Any], options: Sequence[Chain], bench: Bench
) -> dict[Chain, tuple[float, float]]:
    """Seconds of each chain's operators, one after the other and depth first; kept times where there are some."""
    keys = {chain: repr(("chain", [_signature(program, op) for op in program.ops[chain.first : chain.last + 1]]))
            for chain in options}  # fmt: skip
    plain = {chain: replace(chain, first=0, last=chain.last - chain.first, rows=0) for chain in options}
    named = {chain: replace(plain[chain], rows=chain.rows) for chain in options}
    if bench.latencies:
        kept = {chain: bench.latencies.find(keys[chain], BUDGET_S) for chain in options}
        if all(as_json(c) in kept[chain] for chain in options for c in (plain[chain], named[chain])):
            return {
                chain: (kept[chain][as_json(plain[chain])], kept[chain][as_json(named[chain])]) for chain in options
            }
    times = _measure(program, constants, options, bench)
    for chain, (before, after) in times.items():
        if bench.latencies:
            bench.latencies.add(keys[chain], BUDGET_S, {plain[chain]: before, named[chain]: after})
    return times


def _signature(program: Program, op: Op) -> tuple[object, ...]:
    shapes = tuple(program.tensors[name].shape for name in (*op.inputs, *op.outputs))
    how = tuple(str(op.attrs.get(key)) for key in ("kernel", "strides", "pads", "choice", "kept"))
    return (op.kind, shapes, how)


def _measure(
    program: Program, constants: NDArray[Any], options: Sequence[Chain], bench: Bench
) -> dict[Chain, tuple[float, float]]:
    """As `_times`: least over rounds of the whole network, in which every option has its turn."""
    bounds, ports = _bind([program, *(replace(program, chains=(chain,)) for chain in options)], constants, bench)
    before, after = dict.fromkeys(options, np.inf), dict.fromkeys(options, np.inf)
    for turn in range(ROUNDS):
        spent = [_run(bound, bench.pool, ports) for bound in bounds]
        for i, chain in enumerate(options if turn else ()):
            own = range(chain.first, chain.last + 1)
            before[chain] = min(before[chain], sum(ns for ns, op in spent[0] if op in own))
            after[chain] = min(after[chain], sum(ns for ns, op in spent[i + 1] if op in own))
    return {chain: (before[chain] * 1e-9, after[chain] * 1e-9) for chain in options}


def _still_pays(program: Program, constants: NDArray[Any], chosen: tuple[Chain, ...], bench: Bench) -> bool:
    """All of them together, measured now: what is kept may come from a moment when a core was taken away."""
    before, after = _whole(program, constants, chosen, bench)
    if bench.progress and after >= before:
        bench.progress(f"nothing depth first: {after * 1e3:.3f} ms for {before * 1e3:.3f} ms")
    return after < before


def _whole(program: Program, constants: NDArray[Any], chosen: tuple[Chain, ...], bench: Bench) -> tuple[float, float]:
    """Seconds of the network without chains and with them, least over rounds in turns."""
    bounds, ports = _bind([program, replace(program, chains=chosen)], constants, bench)
    spent = [[sum(ns for ns, _ in _run(bound, bench.pool, ports)) for bound in bounds] for _ in range(AGAIN)][1:]
    before, after = (min(turn[i] for turn in spent) * 1e-9 for i in range(2))
    return before, after


def _bind(programs: Sequence[Program], constants: NDArray[Any], bench: Bench) -> tuple[list[Bound], list[NDArray[Any]]]:
    """Programs ready to run in one memory, and arrays to run them on."""
    rng, outside = np.random.default_rng(0), outside_tensors(programs[0])
    plans = [make_plan(made) for made in programs]
    memory = Memory(plans, bench.threads)
    ports = [
        np.empty(0, np.float32)
        if name in outside
        else rng.standard_normal(np.prod(programs[0].tensors[name].shape), np.float32)
        for name in (*programs[0].inputs, *programs[0].outputs)
    ]
    return [Bound(bench.library, plan, constants, bench.threads, memory) for plan in plans], ports


def _run(bound: Bound, pool: Pool, ports: list[NDArray[Any]]) -> list[tuple[float, int]]:
    """Nanoseconds and operator of each record but those inside chains."""
    spent: list[tuple[float, int]] = []
    first = 0
    for stage in bound.plan.stages:
        times = np.zeros(stage.slots, np.int64)
        if stage.partition is None:
            bound.run(pool, stage, ports, times)
        slots = bound.plan.slots[first : first + stage.slots]
        spent += [(float(ns), slot.op) for ns, slot in zip(times, slots, strict=True) if not slot.inside]
        first += stage.slots
    return spent
