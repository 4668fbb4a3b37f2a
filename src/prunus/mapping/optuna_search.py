"""Search by Optuna's samplers, over the same options as the other ways: TPE for one budget, NSGA-II for the frontier of
accuracy and time. Trials are kept in a storage: a search goes on where it was stopped, and several processes or
machines may share one.

Source: Akiba et al., "Optuna", KDD 2019, arXiv:1907.10902; Bergstra et al., NeurIPS 2011 (TPE); Deb et al., 2002
(NSGA-II).
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Literal, final

import optuna
from optuna.trial import FrozenTrial, TrialState

from prunus.mapping.search import Accuracy, Found, Mapping, Progress, best_of, check_budget, digest, labels
from prunus.mapping.space import Space
from prunus.mapping.storage import open_storage, reaching

Sampler = Literal["tpe", "nsga2"]
POPULATION = 20
ACCURACY, MS = "accuracy", "ms"


@final
@dataclass(frozen=True)
class Study:
    """trials: of all processes together, those included that the storage has. storage: a URL, see `storage`; None keeps
    trials for this search only. seed: give each process its own. kept: what isn't lost when the storage fails."""

    sampler: Sampler = "tpe"
    trials: int = 200
    storage: str | None = None
    seed: int = 0
    kept: str = "trials that are in it stay"


def search(
    space: Space,
    accuracy: Accuracy,
    budget_ms: float,
    how: Study | None = None,
    start: Mapping | None = None,
    progress: Callable[[Progress], None] = lambda done: None,
) -> Found:
    """The best of all mappings tried. start: tried first.

    Raises BudgetError: no mapping keeps the budget. StorageError: the storage can't be reached.
    """
    check_budget(space, budget_ms)
    run = _Run(space, budget_ms, how or Study())
    with _quiet():
        run.open(start)
        while True:
            tried = run.tried()
            progress(Progress(len(tried), run.how.trials, best_of(tried, budget_ms)))
            if len(tried) >= run.how.trials:
                break
            run.attempt(accuracy)
    if start is not None and start not in [found.mapping for found in tried]:  # trials of another budget, or others'
        tried.append(Found(start, accuracy(start), space.ms(start)))
    best = best_of(tried, budget_ms)
    assert best is not None, "no trials"
    return best


def frontier(found: list[Found]) -> list[Found]:
    """Those that no other one beats in both, fastest first."""
    best: list[Found] = []
    for one in sorted(found, key=lambda f: (f.ms, -f.accuracy)):
        if not best or one.accuracy > best[-1].accuracy:
            best.append(one)
    return best


def study_name(space: Space, budget_ms: float, sampler: Sampler) -> str:
    """One per network, options, sampler, and for TPE the budget: others don't mix with it."""
    what = [[layer.name, layer.weight, list(layer.shape)] for layer in space.layers]
    return f"prunus-{sampler}-{digest([what, labels(space), budget_ms if sampler == 'tpe' else None])}"


@final
class _Run:
    """A study under way. Whatever may fail because of the storage is inside of `_reaching`, and nothing else is."""

    def __init__(self, space: Space, budget_ms: float, how: Study) -> None:
        self.space, self.budget_ms, self.how = space, budget_ms, how
        self.names = labels(space)
        self.both = how.sampler == "nsga2"

    def open(self, start: Mapping | None) -> None:
        """Make the study, or go on with what there is."""
        url = self.how.storage
        storage = open_storage(url) if url is not None else None
        with self._reaching():
            self.study = optuna.create_study(
                storage=storage,
                study_name=study_name(self.space, self.budget_ms, self.how.sampler),
                directions=["maximize", "minimize"] if self.both else ["maximize"],
                load_if_exists=True,
            )
            if start is not None:
                chosen = {_parameter(self.space, layer): self.names[layer][i] for layer, i in enumerate(start)}
                self.study.enqueue_trial(chosen, skip_if_exists=True)

    def tried(self) -> list[Found]:
        """What all processes have tried so far, with the times that the space has now."""
        with self._reaching():
            trials = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return [self._found(trial) for trial in trials]

    def attempt(self, accuracy: Accuracy) -> None:
        """One trial."""
        with self._reaching():
            n_trials = len(self.study.get_trials(deepcopy=False))
            self.study.sampler = _sampler(self.how.sampler, self.how.seed * 1_000_003 + n_trials)
            trial = self.study.ask()
            picks = [trial.suggest_categorical(_parameter(self.space, i), of) for i, of in enumerate(self.names)]
        mapping = tuple(of.index(pick) for of, pick in zip(self.names, picks, strict=True))
        try:
            found = Found(mapping, accuracy(mapping), self.space.ms(mapping))
        except BaseException:  # interrupted too: the trial isn't left as if someone were at it
            with self._reaching():
                self.study.tell(trial, state=TrialState.FAIL)
            raise
        with self._reaching():
            trial.set_user_attr(ACCURACY, found.accuracy)
            trial.set_user_attr(MS, found.ms)
            self.study.tell(trial, [found.accuracy, found.ms] if self.both else found.reward(self.budget_ms))

    def _found(self, trial: FrozenTrial) -> Found:
        mapping = tuple(of.index(trial.params[_parameter(self.space, i)]) for i, of in enumerate(self.names))
        return Found(mapping, float(trial.user_attrs[ACCURACY]), self.space.ms(mapping))

    def _reaching(self) -> AbstractContextManager[None]:
        return reaching(self.how.storage or "in memory", self.how.kept)


def _parameter(space: Space, layer: int) -> str:
    """Parameters are in the order of their names in some storages: a number keeps that of the network."""
    return f"{layer:03d} {space.layers[layer].name}"


def _sampler(kind: Sampler, seed: int) -> optuna.samplers.BaseSampler:
    """Made anew for each trial from its number, so that a search that goes on doesn't repeat itself."""
    if kind == "tpe":
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=POPULATION)
    return optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=seed)


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna tells of every trial otherwise; our progress does."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
