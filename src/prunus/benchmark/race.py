"""Models times engines, in one interleaved run: who gives the same answer, how fast, at what cost."""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from prunus.benchmark.agreement import difference
from prunus.benchmark.engines import DEFAULT, ENGINES, Engine, Prunus, missing, open_engine
from prunus.benchmark.feeds import Feeds, onnx_inputs, random_feeds, resolve_shapes
from prunus.benchmark.footprint import Footprint, measure_footprint
from prunus.benchmark.refusals import EngineRefusal, NotInstalled
from prunus.benchmark.sessions import Setting, is_artefact
from prunus.benchmark.timing import Ratio, Times, ratio_of_rounds, speed_ratio, time_interleaved
from prunus.errors import FeedError, TargetError
from prunus.runtime.session import check_threads, load

TOLERANCE = 1e-4  # largest difference over largest output that counts as agreement in fp32


@final
@dataclass(frozen=True)
class Row:
    """What one engine did with one model; times are of one call, None where it wasn't timed.

    per_second: inferences per second of all callers together.

    error: largest difference to the reference's outputs over its largest output; None for the
    reference itself and where there is nothing to compare with.
    ratio: how many times as fast as the baseline, paired within rounds.
    compile_s: Prunus's own compilation of an ONNX file; its load_s is then that of the artefact.
    rounds_ms: per inference in each round, in order, for other statistics.
    """

    engine: str
    model: str
    median_ms: float | None = None
    p90_ms: float | None = None
    min_ms: float | None = None
    per_second: float | None = None
    ratio: Ratio | None = None
    load_s: float | None = None
    compile_s: float | None = None
    peak_bytes: int | None = None
    error: float | None = None
    rounds_ms: tuple[float, ...] = ()


@final
@dataclass(frozen=True)
class Result:
    """Rows in the order asked. baseline: "engine model" that ratios refer to.

    mismatches: lines that name outputs which differ; then nothing was timed. notes: lines on what
    was left out, and why.
    """

    baseline: str
    threads: int
    streams: int
    batch: int | None
    rows: tuple[Row, ...]
    mismatches: tuple[str, ...]
    notes: tuple[str, ...]


def paired_ratio(own: Row, other: Row) -> Ratio:
    """How many times as fast `own` is as `other`, both timed in the same run."""
    assert own.rounds_ms and other.rounds_ms, "rows that weren't timed have no ratio"
    return ratio_of_rounds(np.array(own.rounds_ms), np.array(other.rounds_ms))


def peer_ratios(result: Result) -> list[tuple[Row, Row, Ratio]]:
    """For each row of Prunus and each other engine on the same file: both rows and their ratio."""
    timed = [row for row in result.rows if row.rounds_ms]
    return [
        (own, other, paired_ratio(own, other))
        for own in timed
        for other in timed
        if own.engine == "prunus" != other.engine and own.model == other.model
    ]


@final
@dataclass(frozen=True, eq=False)
class _Contestant:
    engine: str
    model: Path
    setting: Setting
    opened: Engine
    feeds: Feeds
    compile_s: float | None
    outputs: list[NDArray[Any]]

    @property
    def label(self) -> str:
        return f"{self.engine} {self.model.name}"

    @property
    def network(self) -> Path:
        """Files that differ in suffix only are one network: model.onnx and its model.prunus."""
        return self.model.with_suffix("")


def benchmark(
    models: Sequence[Path],
    engines: Sequence[str] = DEFAULT,
    setting: Setting | None = None,
    *,
    batch: int | None = None,
    time_s: float = 5.0,
    warmup_s: float = 1.0,
    tolerance: float = TOLERANCE,
    footprints: bool = True,
    seed: int = 0,
    progress: Callable[[str], None] = lambda step: None,
) -> Result:
    """Race `engines` on `models` with random inputs of `seed`, the same for all.

    `setting.shapes` and `batch` fill what the models leave open. Each engine gets as many threads, and calls from
    `setting.streams` callers at the same time; a ratio is then one of inferences per second. `time_s` and `warmup_s`
    are per engine and model. `footprints`: measure load and memory too.
    An engine that isn't installed or refuses a model is left out with a note.
    Raises NotInstalled, EngineRefusal: none is left. FeedError: shapes. TargetError: no such
    engine. PrunusError: as `prunus.compile` and `prunus.load` do.
    """
    setting = setting or Setting(check_threads(None))
    for engine in engines:
        if engine not in ENGINES:
            raise TargetError(f"engine {engine!r}: expected one of {', '.join(ENGINES)}")
    notes: list[str] = []
    present = [engine for engine in dict.fromkeys(engines) if not _absent(engine, notes)]
    inputs = {model: _inputs(model) for model in dict.fromkeys(models)}
    _check_names(setting.shapes, inputs)
    field: list[_Contestant] = []
    for model in inputs:
        for engine in present:
            if engine != "prunus" and is_artefact(model):
                continue
            progress(f"opening {model.name} in {engine}")
            entrant = _enter(engine, model, inputs[model], setting, batch, seed, notes)
            if entrant is not None:
                field.append(entrant)
    if not field:
        raise EngineRefusal("; ".join(notes) or "nothing to run: no engine takes these files")
    base = next((c for c in field if c.engine != "prunus"), field[0])
    errors, mismatches = _compare(field, tolerance, notes)
    times: Mapping[str, Times] = {}
    prints: dict[str, Footprint | None] = {}
    if not mismatches:
        if footprints:
            prints = {c.label: _footprint(c, progress) for c in field}
        calls = {c.label: lambda c=c: c.opened.run(c.feeds) for c in field}
        times = time_interleaved(calls, time_s, warmup_s, progress=progress, callers=setting.streams)
    rows = [_row(c, base, errors.get(c.label), times, prints) for c in field]
    return Result(base.label, setting.threads, setting.streams, batch, tuple(rows), tuple(mismatches), tuple(notes))


def _absent(engine: str, notes: list[str]) -> NotInstalled | None:
    absent = missing(engine)
    if absent:
        notes.append(str(absent))
    return absent


def _inputs(model: Path) -> Sequence[Any]:
    return load(model, 1).get_inputs() if is_artefact(model) else onnx_inputs(model)


def _check_names(given: Mapping[str, object], inputs: Mapping[Path, Sequence[Any]]) -> None:
    known = {port.name for ports in inputs.values() for port in ports}
    for name in given:
        if name not in known:
            raise FeedError(f"no input {name!r}: the models have {', '.join(sorted(known))}")


def _enter(
    engine: str,
    model: Path,
    ports: Sequence[Any],
    setting: Setting,
    batch: int | None,
    seed: int,
    notes: list[str],
) -> _Contestant | None:
    """Open a model in an engine and run it once; None, with a note, where the engine refuses."""
    names = {port.name for port in ports}
    given = {name: shape for name, shape in setting.shapes.items() if name in names}
    shapes = resolve_shapes(ports, given, batch, str(model))
    symbolic = {p.name for p in ports if any(isinstance(dim, str) for dim in p.shape)}
    open_shapes = {name: shape for name, shape in shapes.items() if name in symbolic}
    own = Setting(**{**setting.__dict__, "shapes": open_shapes})
    feeds = random_feeds(ports, shapes, seed)
    start = time.perf_counter()
    try:
        opened = open_engine(engine, model, own)
    except EngineRefusal as refusal:
        notes.append(str(refusal))
        return None
    spent_s = time.perf_counter() - start
    compiled = engine == "prunus" and not is_artefact(model)
    return _Contestant(engine, model, own, opened, feeds, spent_s if compiled else None, opened.run(feeds))


def _compare(field: Sequence[_Contestant], tolerance: float, notes: list[str]) -> tuple[dict[str, float], list[str]]:
    """Difference of each contestant to the reference of its network, and a line per mismatch."""
    errors: dict[str, float] = {}
    lines = []
    for network in dict.fromkeys(c.network for c in field):
        group = [c for c in field if c.network == network]
        reference = next((c for c in group if c.engine != "prunus"), group[0])
        if len(group) == 1:
            notes.append(f"{group[0].label}: outputs not compared, nothing else ran this network")
        for c in group:
            if c is reference:
                continue
            errors[c.label] = error = difference(c.outputs, reference.outputs)
            if not error <= tolerance:
                lines.append(
                    f"output mismatch: {c.label} differs from {reference.label} by {error:.1e} of "
                    f"the largest output, expected at most {tolerance:.0e}"
                )
    return errors, lines


def _footprint(c: _Contestant, progress: Callable[[str], None]) -> Footprint | None:
    progress(f"load time and memory of {c.label}")
    with tempfile.TemporaryDirectory(prefix="prunus-") as folder:
        feeds = Path(folder) / "feeds.npz"
        np.savez(feeds, **c.feeds)  # type: ignore[arg-type]  # names come from the model
        model = c.model
        if isinstance(c.opened, Prunus) and c.compile_s is not None:
            model = Path(folder) / "model.prunus"
            c.opened.session.save(model)
        return measure_footprint(c.engine, model, c.setting, feeds)


def _row(
    c: _Contestant,
    base: _Contestant,
    error: float | None,
    times: Mapping[str, Times],
    prints: Mapping[str, Footprint | None],
) -> Row:
    row: dict[str, Any] = {"compile_s": c.compile_s, "error": error}
    if own := times.get(c.label):
        row |= {
            "median_ms": own.median_s * 1e3,
            "p90_ms": own.p90_s * 1e3,
            "min_ms": own.min_s * 1e3,
            "per_second": own.per_second,
            "ratio": speed_ratio(own, times[base.label]),
            "rounds_ms": tuple(round(float(t) * 1e3, 6) for t in own.rounds),
        }
    if footprint := prints.get(c.label):
        row |= {"load_s": footprint.load_s, "peak_bytes": footprint.peak_bytes}
    return Row(c.engine, c.model.name, **row)
