"""A plan: made from numpy alone, twice the same, with every record whole and inside the memory it names."""

import time

import numpy as np
import pytest

import prunus
from prunus.runtime.plan import Plan, constant_offsets, make_plan
from prunus.runtime.program import Program
from prunus.runtime.records import ARENA, KINDS, PORTS, RECORDS, TABLES
from tests.runtime.networks import NETWORKS

FIELDS = {number: RECORDS[kind] for kind, number in KINDS.items()}


def program(name: str) -> Program:
    return prunus.compile(NETWORKS[name]("N"), tune="off", threads=1).program


def records(plan: Plan) -> list[tuple[str, dict[str, int]]]:
    """Kind and fields of each record, checking that lengths add up."""
    kinds, found, place = {n: kind for kind, n in KINDS.items()}, [], 0
    while place < len(plan.records):
        number, length = plan.records[place : place + 2].tolist()
        names = FIELDS[number]
        assert length == len(names) + 2
        fields = dict(zip(names, plan.records[place + 2 : place + length].tolist(), strict=True))
        found.append((kinds[number], fields))
        place += length
    assert place == len(plan.records)
    return found


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("batch", [1, 3])
def test_addresses_are_inside(name: str, batch: int) -> None:
    made = program(name)
    plan = make_plan(made, batch)
    found = records(plan)
    assert len(found) == len(plan.slots)
    ports = len(made.inputs) + len(made.outputs)
    for kind, fields in found:
        for key in ("x", "out", "residual", "other", "weights", "offsets", "groups", "calls", "mask", "bias"):
            if fields.get(key, -1) < 0:
                continue
            space, element = fields[key] >> 40, fields[key] & ((1 << 40) - 1)
            assert space < PORTS + ports, f"{kind}.{key}"
            if space == ARENA:
                assert element < plan.arena
            if space == TABLES:
                assert element < len(plan.tables)
        assert fields["out"] >> 40 == ARENA or fields["out"] >> 40 >= PORTS + len(made.inputs)


@pytest.mark.parametrize("name", NETWORKS)
def test_stages_cover_all_records_in_order(name: str) -> None:
    plan = make_plan(program(name))
    place = 0
    for stage in plan.stages:
        if stage.partition is None:
            assert stage.start == place < stage.end
            place = stage.end
    assert place == len(plan.records)
    steps = [slot.op for slot in plan.slots]
    assert steps == sorted(steps)


@pytest.mark.parametrize("name", NETWORKS)
def test_same_program_same_plan(name: str) -> None:
    made = program(name)
    first, second = make_plan(made, 2), make_plan(made, 2)
    np.testing.assert_array_equal(first.records, second.records)
    np.testing.assert_array_equal(first.tables, second.tables)
    assert (first.arena, first.scratch, first.slots, first.layouts) == (
        second.arena, second.scratch, second.slots, second.layouts,
    )  # fmt: skip


def test_layouts_scale_with_the_batch() -> None:
    made = program("residual")
    for batch in (1, 2, 7):
        plan = make_plan(made, batch)
        assert {layout.shape[0] for layout in plan.layouts.values()} == {batch}
        assert plan.batch == batch
    assert make_plan(made, 7).arena > make_plan(made, 1).arena


def test_constants_lie_on_lines_and_apart() -> None:
    made = program("classifier")
    offsets, end = constant_offsets(made), 0
    for name, array in made.constants.items():
        assert offsets[name] % 16 == 0 and offsets[name] >= end
        end = offsets[name] + -(-array.nbytes // 4)


def test_plans_in_milliseconds() -> None:
    made = program("residual")
    make_plan(made, 1)
    start = time.perf_counter()
    make_plan(made, 2)
    assert time.perf_counter() - start < 0.25  # a few ms; room for a busy machine
