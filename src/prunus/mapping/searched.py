"""Plans by search: it starts from the exact plan, and tries what the sum of losses can't tell."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

from prunus.errors import StorageError
from prunus.mapping import optuna_search, reinforce
from prunus.mapping.options import Sources, full_space
from prunus.mapping.plan import SEARCHES, Budget, Plan, check_searchable, plan_of, solve_or_say
from prunus.mapping.rules import Terms, rule_0_stays, rule_1_depthwise
from prunus.mapping.search import Accuracy, Found, Progress, digest, labels, narrowed
from prunus.mapping.space import LayerSpace, Option, Space
from prunus.mapping.storage import JOURNAL

SAMPLES = 6  # mappings in each step of REINFORCE


@final
@dataclass(frozen=True)
class Searching:
    """trials: mappings to try. storage: of Optuna's trials. state: folder of files from which a search goes on; those
    of another network, budget or seed aren't touched."""

    trials: int = 300
    seed: int = 0
    storage: str | None = None
    state: Path | None = None

    @property
    def trials_at(self) -> str | None:
        """The storage; where none was named but a state, a journal beside it."""
        if self.storage is None and self.state is not None:
            return f"{JOURNAL}{self.state.resolve() / 'trials.log'}"
        return self.storage

    @property
    def kept(self) -> str:
        """What isn't lost where the storage fails."""
        where = "" if self.state is None else f", accuracies in {self.state}"
        return f"trials that are in it stay{where}, and the same command goes on"


def searched_plan(
    sources: Sources,
    budget: Budget,
    terms: Terms,
    method: str,
    accuracy_of: Callable[[Space], Accuracy],
    how: Searching,
    progress: Callable[[Progress], None] = lambda done: None,
) -> tuple[Plan, Found]:
    """The plan of the best mapping that was tried, and what was found of it.

    accuracy_of: of a space, how accurate its mappings are.
    Raises BudgetError: it can't be met, or is one of sparsity. StorageError: the storage can't be reached, or REINFORCE
    was given one. CheckpointError: a file in `state` is damaged.
    """
    assert method in SEARCHES, method
    check_searchable(budget, method)
    if how.storage is not None and method == "search":
        raise StorageError("--storage with --method search: expected --method tpe or nsga2, whose trials it keeps")
    stays = {site.name: rule_1_depthwise(site) or rule_0_stays(site, terms) for site in sources.network.sites}
    whole = full_space(sources, terms.sparsities, lambda site: stays[site.name])
    space, start = narrowed(whole, solve_or_say(sources, whole, budget, terms))
    found = _search(space, accuracy_of(space), budget.ms(space), method, how, start, progress)
    pairs = list(zip(space.layers, space.chosen(found.mapping), space.chosen(start), strict=True))
    reasons = [stays[layer.name] or _why(layer, option, exact, method) for layer, option, exact in pairs]
    return plan_of(sources, space, found.mapping, reasons, budget, method), found


def _search(
    space: Space, accuracy: Accuracy, budget_ms: float, method: str, how: Searching, start: tuple[int, ...],
    progress: Callable[[Progress], None],
) -> Found:  # fmt: skip
    if method == "search":
        settings = reinforce.Reinforce(max(how.trials // SAMPLES, 1), SAMPLES, seed=how.seed)
        state = (
            None
            if how.state is None
            else how.state / f"search-{_digest(space, budget_ms, settings, start)}.safetensors"
        )
        return reinforce.search(space, accuracy, budget_ms, settings, start, state, progress)
    sampler: optuna_search.Sampler = "tpe" if method == "tpe" else "nsga2"
    if how.state is not None:
        how.state.mkdir(parents=True, exist_ok=True)
    study = optuna_search.Study(sampler, how.trials, how.trials_at, how.seed, how.kept)
    return optuna_search.search(space, accuracy, budget_ms, study, start, progress)


def _digest(space: Space, budget_ms: float, settings: reinforce.Reinforce, start: tuple[int, ...]) -> str:
    names = [layer.name for layer in space.layers]
    return digest([names, labels(space), budget_ms, asdict(settings), start])


def _why(layer: LayerSpace, option: Option, exact: Option, method: str) -> str:
    if len(layer.options) == 1:
        return "rule 5: nothing is clearly faster than dense"
    said = "dense is best" if option.scheme is None else "best"
    other = "dense" if exact.scheme is None else f"{exact.scheme} {exact.sparsity:g}"
    return f"{method}: {said} of those tried" + ("" if option == exact else f"; exact {other}, {exact.ms:.4g} ms")
