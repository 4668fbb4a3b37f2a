"""Optuna's samplers against exhaustive search; storages that are shared, interrupted and unreachable."""

import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from prunus.errors import OutputError, StorageError
from prunus.mapping.optuna_search import Sampler, Study, frontier, search, study_name
from prunus.mapping.search import Found, Mapping, Progress
from prunus.mapping.storage import hidden, open_storage
from tests.mapping.spaces import additive, entangled, exhaustive, lost, space_of

SPACE = space_of(0)
BUDGET = SPACE.dense_ms / 2


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_as_good_as_exhaustive_search(sampler: Sampler) -> None:
    """Within 5 % of what the best mapping costs, from the one that is the best if losses added up."""
    accuracy = entangled(SPACE)
    start = exhaustive(SPACE, additive(SPACE), BUDGET)
    found = search(SPACE, accuracy, BUDGET, Study(sampler, 120), start.mapping)
    assert found.ms <= BUDGET
    assert lost(found) <= 1.05 * lost(exhaustive(SPACE, accuracy, BUDGET))


@pytest.mark.parametrize("url", ["sqlite:///{}/trials.db", "journal:///{}/trials.log"])
def test_a_study_of_other_budgets_keeps_this_one(url: str, tmp_path: Path) -> None:
    how = Study("nsga2", 3, url.format(tmp_path))
    dense = (0, 0, 0, 0)
    search(SPACE, additive(SPACE), SPACE.dense_ms, how, dense)
    start = exhaustive(SPACE, additive(SPACE), BUDGET / 1.5).mapping
    found = search(SPACE, additive(SPACE), BUDGET / 1.5, how, start)
    assert found.ms <= BUDGET / 1.5


@pytest.mark.parametrize("url", ["sqlite:///{}/trials.db", "journal:///{}/trials.log"])
def test_goes_on_where_it_was_stopped(url: str, tmp_path: Path) -> None:
    """What is in the storage counts, and isn't tried again; what was cut off doesn't count."""
    how = Study(trials=8, storage=url.format(tmp_path))
    accuracy, tried = additive(SPACE), list[Mapping]()

    def call(mapping: Mapping) -> float:
        if len(tried) == 3:
            raise KeyboardInterrupt
        tried.append(mapping)
        return accuracy(mapping)

    with pytest.raises(KeyboardInterrupt):
        search(SPACE, call, BUDGET, how, (1, 1, 1, 1))
    assert tried[0] == (1, 1, 1, 1)
    seen, more = list[Progress](), list[Mapping]()
    found = search(SPACE, lambda m: more.append(m) or accuracy(m), BUDGET, how, (1, 1, 1, 1), seen.append)
    assert (len(more), seen[0].done, seen[-1].done) == (5, 3, 8)
    assert len({*tried, *more}) > 6  # chance goes on too
    assert search(SPACE, lambda m: pytest.fail("tried again"), BUDGET, how) == found


@pytest.mark.slow
def test_processes_share_a_storage(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/trials.db"
    code = (
        "import sys; from prunus.mapping.optuna_search import *; from tests.mapping.spaces import *; s = space_of(0);"
        f"search(s, additive(s), s.dense_ms / 2, Study(trials=16, storage={url!r}, seed=int(sys.argv[1])))"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(seed)], stderr=subprocess.PIPE) for seed in (0, 1)]
    assert [process.communicate()[1] for process in running] == [b"", b""]
    assert [process.returncode for process in running] == [0, 0]
    study = optuna.load_study(study_name=study_name(SPACE, BUDGET, "tpe"), storage=open_storage(url))
    assert 16 <= len(study.trials) <= 17  # both may be at the last one


def test_other_networks_and_budgets_are_other_studies() -> None:
    names = {study_name(space_of(0, n), budget, "tpe") for n in (3, 4) for budget in (1.0, 2.0)}
    assert len(names) == 4
    assert study_name(SPACE, 1.0, "nsga2") == study_name(SPACE, 2.0, "nsga2")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite:////nowhere/trials.db", "sqlite:////nowhere/trials.db: unable to open"),
        ("nothing", "nothing: expected a URL as sqlite:///"),
        ("quince://host/name", "quince://host/name: no such kind of database"),
        ("journal:////nowhere/trials.log", "no folder /nowhere"),
        ("journal:///", "expected a file"),
        ("postgresql://host:port/name", "expected a URL as sqlite:///"),
        ("redis://host:port", "expected a URL as|needs the package redis"),
    ],
)
def test_storages_that_cant_be_reached(url: str, words: str) -> None:
    with pytest.raises(StorageError, match=words):
        search(SPACE, additive(SPACE), BUDGET, Study(storage=url))


def test_a_driver_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    with pytest.raises(StorageError, match=r"//me:\*\*\*@host/name: needs the package psycopg2"):
        open_storage("postgresql+psycopg2://me:secret@host/name")


def test_passwords_are_not_shown() -> None:
    assert hidden("redis://:secret@host:6379") == "redis://:***@host:6379"
    assert hidden("postgresql://me@host/name") == "postgresql://me@host/name"


def test_a_storage_that_is_lost_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    how = Study(trials=6, storage=f"sqlite:///{tmp_path}/trials.db", kept="accuracies are in kept.jsonl")
    accuracy = additive(SPACE)
    with monkeypatch.context() as patched:
        tell, told = optuna.Study.tell, list[object]()

        def lost_at_the_third(study: optuna.Study, *arguments: object, **more: object) -> object:
            if len(told) == 2:
                raise optuna.exceptions.StorageInternalError("commit") from OSError("connection refused\nby peer")
            told.append(arguments)
            return tell(study, *arguments, **more)

        patched.setattr(optuna.Study, "tell", lost_at_the_third)
        with pytest.raises(StorageError, match=r"trials\.db: connection refused; accuracies are in kept\.jsonl$"):
            search(SPACE, accuracy, BUDGET, how)
    seen: list[Progress] = []
    search(SPACE, accuracy, BUDGET, how, progress=seen.append)
    assert seen[0].done == 2


def test_errors_of_an_evaluation_are_not_the_storages() -> None:
    def full(mapping: Mapping) -> float:
        raise OutputError("kept.jsonl: disk full")

    with pytest.raises(OutputError, match="disk full"):
        search(SPACE, full, BUDGET, Study(trials=3))


def test_frontier_is_what_nothing_beats() -> None:
    found = [Found((i,), accuracy, ms) for i, (accuracy, ms) in enumerate(((0.9, 1), (0.8, 2), (0.95, 2), (0.95, 3)))]
    assert [f.mapping for f in frontier(found)] == [(0,), (2,)]
