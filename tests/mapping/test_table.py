"""Times of layers: measured once, kept, interpolated in between."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prunus.compiler.latency import Latencies, Place
from prunus.compiler.virtual import masked
from prunus.errors import PrunusWarning
from prunus.mapping.keep import Entry, Kept
from prunus.mapping.network import Site, read_network
from prunus.mapping.table import GRID, Table, table_of
from prunus.sparsity.check import check
from prunus.sparsity.scheme import Scheme, parse
from tests.mapping.fakes import formula, network, sources

PUNCHED, PATTERN, FIXED = parse("punched:4x1"), parse("pattern:4"), parse("2:4")


def counting() -> tuple[Table, list[tuple[str, str, float]]]:
    calls: list[tuple[str, str, float]] = []

    def measure(site: Site, scheme: Scheme | None, sparsity: float) -> float:
        calls.append((site.name, str(scheme), sparsity))
        return formula(site, scheme, sparsity)

    return Table(measure), calls


def test_between_measured_sparsities_time_is_linear_in_density() -> None:
    table, calls = counting()
    site = sources().network.sites[3]
    found = table.time(site, PUNCHED, 0.75)
    assert not found.measured and found.ms == pytest.approx(formula(site, PUNCHED, 0.75))  # the formula is linear
    assert [sparsity for _, _, sparsity in calls] == [0.7, 0.8]
    assert table.time(site, PUNCHED, 0.7).measured and len(calls) == 2
    assert table.time(site, PUNCHED, 0.99).measured and calls[-1][2] == 0.99  # nothing is extrapolated


def test_points_are_those_that_a_scheme_can_have() -> None:
    table, _ = counting()
    assert table.points(PUNCHED) == GRID
    assert table.points(PATTERN) == (pytest.approx(5 / 9), 0.7, 0.8, 0.9, 0.95)
    assert table.points(FIXED) == (0.5,)


def test_layers_that_differ_in_weights_only_are_measured_once() -> None:
    table, calls = counting()
    about = sources()
    site = about.network.sites[3]
    other = replace(site, name="another", weights=())
    assert table.time(site, PUNCHED, 0.9) == table.time(other, PUNCHED, 0.9)
    table.time(replace(site, signature="of another shape"), PUNCHED, 0.9)
    assert [name for name, _, _ in calls] == [site.name, site.name]


def test_times_are_kept_where_they_hold(tmp_path: Path) -> None:
    site = sources().network.sites[3]
    here = Kept(Latencies(tmp_path / "latency.sqlite", Place("this", "library", 1)), "x86-64", "fp32")
    Table(formula, here).time(site, PUNCHED, 0.9)

    def refuse(*_: object) -> float:
        raise AssertionError("measured again")

    assert Table(refuse, here).time(site, PUNCHED, 0.9).ms == formula(site, PUNCHED, 0.9)
    for other in (replace(here, target="x"), replace(here, precision="bf16"),
                  replace(here, file=replace(here.file, place=Place("this", "library", 2)))):  # fmt: skip
        with pytest.raises(AssertionError, match="measured again"):
            Table(refuse, other).time(site, PUNCHED, 0.9)
    here.add_network("digest", {"slope": 1.0})
    assert here.network("digest") == {"slope": 1.0} and here.network("other") is None
    later = replace(here, since="2999-01-01T00:00:00+00:00")
    assert later.times() == {} and later.network("digest") is None
    assert len(replace(here, since="2020-01-01T00:00:00+00:00").times()) == len(here.times()) > 0


def test_another_cpus_times_are_ignored_with_a_word(tmp_path: Path) -> None:
    path = tmp_path / "latency.sqlite"
    Kept(Latencies(path, Place("a Cray", "library", 1)), "x86-64", "fp32").add(Entry("s", "dense", 0.0), 1.0)
    with pytest.warns(PrunusWarning, match="measured on a Cray are ignored: this is mine"):
        assert Kept(Latencies(path, Place("mine", "library", 1)), "x86-64", "fp32").times() == {}


def test_masks_are_of_the_scheme_and_weights_never_zero() -> None:
    read = read_network(network(), threads=1)
    tuner, site = read.tuner(), read.sites[3]
    ((dense, _, times),) = masked(site.nodes[0], read.graph, None, 0.0, tuner)
    assert times == 1 and dense.matrix.all()
    ((sparse, _, _),) = masked(site.nodes[0], read.graph, PUNCHED, 0.75, tuner)
    mask = sparse.matrix.reshape(site.shape) != 0
    assert check(mask, PUNCHED) is None and 1 - mask.mean() == pytest.approx(0.75, abs=0.02)
    np.testing.assert_array_equal(sparse.matrix[sparse.matrix != 0], dense.matrix[sparse.matrix != 0])


def test_a_layer_is_measured_and_found_in_the_file(measured_times: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = read_network(network(), threads=1)
    ms = table_of(read).time(read.sites[2], PUNCHED, 0.9).ms
    assert ms > 0 and measured_times.exists()
    monkeypatch.setattr("prunus.mapping.network.now", lambda: "2999-01-01T00:00:00+00:00")
    assert not table_of(read_network(network(), threads=1, fresh=True)).known
    again = table_of(read)
    assert [entry.scheme for entry in again.known] == ["punched:4x1"] and again.time(
        read.sites[2], PUNCHED, 0.9
    ).ms == ms
