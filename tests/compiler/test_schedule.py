"""A schedule says how layers are computed: written, read back, changed by hand; what can't be is refused by name."""

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prunus.compiler.choice import Choice
from prunus.compiler.compile import compile
from prunus.compiler.schedule import Schedule, check_layers, refusal, schedule_text
from prunus.compiler.tune import layer_shapes
from prunus.errors import ScheduleError
from prunus.graph.read import read
from prunus.kernels.isa import isa_of
from prunus.runtime.cpu import describe
from prunus.runtime.session import Session
from tests.runtime.networks import NETWORKS, assert_agrees, feeds_for, onnxruntime_run

TARGET = describe().best_target or "x86-64"


def choices_of(session: Session) -> dict[str, object]:
    return {op.name: op.attrs["choice"] for op in session.program.ops if "choice" in op.attrs}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_schedule_comes_back_as_it_went(name: str, tmp_path: Path) -> None:
    model, path = NETWORKS[name](), tmp_path / "schedule.yaml"
    session = compile(model, threads=1)
    path.write_text(schedule_text(session.program, 1))
    again = compile(model, threads=1, tune="off", schedule=path)
    assert choices_of(again) == choices_of(session)
    assert schedule_text(again.program, 1).count("pinned by the schedule") == len(choices_of(session))
    feeds = feeds_for(model)
    assert_agrees(again.run(None, feeds), onnxruntime_run(model, feeds))


def test_a_part_pins_that_part_only(tmp_path: Path) -> None:
    path = tmp_path / "schedule.yaml"
    text = schedule_text(compile(NETWORKS["residual"](), threads=1, tune="off").program, 1)
    head, first, *_ = re.split(r"(?m)^(?=  # )", text)
    path.write_text(head + re.sub(r"tile: \d+", "tile: 1", first))
    rows = compile(NETWORKS["residual"](), threads=1, tune="off", schedule=path).explain()
    layers = [row for row in rows if row.op == "conv"]
    assert [row.reason == "pinned by the schedule" for row in layers] == [True] + [False] * (len(layers) - 1)


CHOICES = st.builds(
    Choice,
    encoding=st.sampled_from(Choice.__annotations__["encoding"].__args__),
    heights=st.lists(st.sampled_from([2, 3, 4, 5, 6, 8, 12, 16, 32]), max_size=3).map(lambda h: (*h, 1)),
    tile=st.integers(1, 12),
    section=st.sampled_from([1, 7, 16, 64, 1000, 60000]),
    tiles_per_task=st.integers(1, 9),
    pixels_outer=st.booleans(),
    chunk=st.sampled_from([0, 0, 1, 5, 40]),
    union=st.sampled_from([1, 1, 2, 4, 8]),
    apart=st.sampled_from([1, 1, 2, 4]),
    block=st.sampled_from([(8, 16), (4, 9), (1, 1), (16, 64)]),
    columns_outer=st.booleans(),
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from(sorted(NETWORKS)), choice=CHOICES, threads=st.sampled_from([1, 2]))
def test_whatever_is_not_refused_computes_the_same(name: str, choice: Choice, threads: int) -> None:
    model, isa = NETWORKS[name](), isa_of(TARGET)
    shapes = layer_shapes(read(model), isa, threads)
    fits = {layer: choice for layer, shape in shapes.items() if refusal(choice, shape, isa) is None}
    if not fits:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prunus.compiler.compile.read_schedule", lambda *_: Schedule(fits, ()))
        session = compile(model, threads=threads, tune="off", schedule="given")
    pinned = [row for row in session.explain() if row.reason == "pinned by the schedule"]
    assert len(pinned) == len(fits)
    feeds = feeds_for(model, seed=5)
    assert_agrees(session.run(None, feeds), onnxruntime_run(model, feeds))


GOOD = "version: 1\ntarget: {target}\nthreads: 1\nlayers:\n  {layer}: {{{fields}}}\n"
FIELDS = "encoding: rows, heights: [1], tile: 2, section: 60000, tiles_per_task: 1, pixels_outer: false"
BAD = {
    "not YAML": ("layers: [", r"schedule\.yaml: not YAML"),
    "not text": ("\0", r"schedule\.yaml: not YAML"),
    "a list": ("[1, 2]", r"schedule\.yaml: Input should be"),
    "a key too many": ("layer:\n  a: {}\n", r"version: Field required|unknown key 'layer', did you mean 'layers'"),
    "another version": (GOOD.replace("version: 1", "version: 2"), "version 2, expected 1"),
    "another target": (GOOD.replace("{target}", "sparc"), "target sparc, expected"),
    "other threads": (GOOD.replace("threads: 1", "threads: 3"), "threads 3, expected 1"),
    "no such layer": (
        GOOD.replace("{layer}", "conw0"),
        "'conw0': the network has none .*, did you mean 'conv",
    ),
    "no such key": (GOOD.replace("{fields}", FIELDS.replace("tile:", "tyle:")), "'tyle', did you mean 'tile'"),
    "missing key": (GOOD.replace("{fields}", "encoding: rows"), "heights: Field required"),
    "wrong type": (GOOD.replace("{fields}", FIELDS.replace("tile: 2", "tile: two")), "tile: .* found 'two'"),
    "no such encoding": (GOOD.replace("{fields}", FIELDS.replace("rows", "csr")), "encoding: .*'csr'"),
    "tile too wide": (GOOD.replace("{fields}", FIELDS.replace("tile: 2", "tile: 99")), "height 1 with tile 99"),
    "no height 1": (GOOD.replace("{fields}", FIELDS.replace("[1]", "[2]")), "expected 1 among them"),
    "section of nothing": (GOOD.replace("{fields}", FIELDS.replace("60000", "0")), "section 0, expected at least 1"),
    "half a section": (
        GOOD.replace("{fields}", FIELDS.replace("rows", "winograd").replace("[1]", "[2, 1]").replace("60000", "3")),
        "section 3, expected a multiple of the height 2",
    ),
    "no block": (GOOD.replace("{fields}", FIELDS.replace("rows", "blocks")), "expected rows and columns of a block"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_schedules(name: str, tmp_path: Path) -> None:
    text, said = BAD[name]
    path = tmp_path / "schedule.yaml"
    model = NETWORKS["residual"]()
    layer = next(node.name for node in model.graph.node if node.op_type == "Conv")
    for key, value in (("target", TARGET), ("layer", layer), ("fields", FIELDS)):
        text = text.replace("{" + key + "}", value)
    path.write_text(text.replace("{{", "{").replace("}}", "}"))
    with pytest.raises(ScheduleError, match=said) as caught:
        compile(model, threads=1, tune="off", schedule=path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_absent_schedule(tmp_path: Path) -> None:
    with pytest.raises(ScheduleError, match=r"absent\.yaml: No such file"):
        compile(NETWORKS["residual"](), threads=1, schedule=tmp_path / "absent.yaml")


def test_layers_are_checked_by_name() -> None:
    choice = Choice("rows", (1,), 1, 1, 1, False)
    with pytest.raises(ScheduleError, match=r"s\.yaml: layer 'x': the network has none"):
        check_layers("s.yaml", {"x": choice}, {}, isa_of(TARGET))
