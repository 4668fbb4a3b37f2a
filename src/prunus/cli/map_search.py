"""What `prunus map` needs to search: the file as a torch module, samples with labels, and where its state is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from prunus.errors import RecipeError, StorageError, TrainingError, UnsupportedError

if TYPE_CHECKING:
    from prunus.mapping.network import Network
    from prunus.mapping.options import Sources
    from prunus.mapping.plan import Budget, Plan
    from prunus.mapping.rules import Terms
    from prunus.pruning.images import Scaling

ACCURACIES = "accuracies.jsonl"
RECURRENT = ("GRU", "LSTM", "RNN")


@final
@dataclass(frozen=True)
class Search:
    """Options of a search, as they were given."""

    data: Path | None
    trials: int
    steps: int
    storage: str | None
    seed: int
    state: Path


@final
@dataclass(frozen=True)
class Tried:
    """Fractions of right answers after a quick retraining, on samples that are held out."""

    accuracy: float
    dense: float
    samples: int

    def __str__(self) -> str:
        return (
            f"{self.accuracy:.2%} after a quick retraining, dense {self.dense:.2%}, on {self.samples} samples held out"
        )


def check_search(method: str, how: Search) -> None:
    """Do the options of a search go with the method?

    Raises RecipeError, StorageError: they don't.
    """
    from prunus.mapping.plan import SEARCHES

    if method in SEARCHES:
        if how.data is None:
            raise RecipeError(f"--method {method}: --data missing, expected an npz with x and y or a folder of images")
        if how.storage is not None and method == "search":
            raise StorageError("--storage with --method search: expected --method tpe or nsga2, whose trials it keeps")
        return
    for name, value in (("data", how.data), ("storage", how.storage)):
        if value is not None:
            raise RecipeError(f"--{name} with --method {method}: expected one of {', '.join(SEARCHES)}")


@final
@dataclass(frozen=True, eq=False)
class Prepared:
    """What a search trains: the file as a module, and samples."""

    module: Any
    samples: Any


def prepare(network: "Network", data: Path, storage: str | None, scaling: "Scaling") -> Prepared:
    """Read what a search needs, before anything is measured.

    Raises TrainingError: data that isn't any, or a network that can't be trained. UnsupportedError: recurrent layers,
    which aren't layers any more in a file's module. StorageError: the storage can't be reached.
    """
    from prunus.mapping.storage import open_storage
    from prunus.pruning.torch_module import to_module

    if storage is not None:
        open_storage(storage)
    for site in network.sites:
        if site.op in RECURRENT and not site.refusal:
            raise UnsupportedError(
                f"layer {site.name}: {site.op} of a file isn't trained by a search; expected --method rules or exact, "
                "or in Python an Evaluator of the torch module"
            )
    samples = _samples(data, scaling, _sample_shape(network))
    return Prepared(to_module(network.model, network.input_shapes), samples)


def search_plan(
    sources: "Sources", budget: "Budget", terms: "Terms", method: str, how: Search, what: Prepared,
    step: Callable[[object], None],
) -> "tuple[Plan, Tried]":  # fmt: skip
    """The plan that a search finds, and how accurate it was.

    Raises TrainingError: samples that aren't the network's.
    """
    from prunus.mapping.evaluate import Effort, Evaluator
    from prunus.mapping.searched import Searching, searched_plan
    from prunus.mapping.space import DENSE, Space

    made: list[Evaluator] = []

    def accuracy_of(space: Space) -> Evaluator:
        made.append(Evaluator(what.module, space, what.samples, Effort(steps=how.steps), how.state / ACCURACIES))
        return made[-1]

    searching = Searching(how.trials, how.seed, how.storage, how.state)
    plan, found = searched_plan(sources, budget, terms, method, accuracy_of, searching, step)
    evaluator = made[-1]
    dense = evaluator((DENSE,) * len(evaluator.space.layers))
    return plan, Tried(found.accuracy, dense, len(evaluator.held))


def _sample_shape(network: Any) -> tuple[int, ...]:
    """Of one x. Raises TrainingError: several inputs, or a batch that is fixed."""
    names = list(network.graph.inputs)
    if len(names) != 1:
        raise TrainingError(f"model: {len(names)} inputs, expected one: a search trains on pairs of x and y")
    if not network.graph.batch:
        raise TrainingError(f"model: the batch of input {names[0]} is fixed, expected a symbolic one to train with")
    return tuple(network.graph.values[names[0]].shape[1:])


def _samples(path: Path, scaling: "Scaling", shape: tuple[int, ...]) -> Any:
    from prunus.training.data import read_data
    from prunus.training.standard import Data

    mean, std = (values[0] if len(values) == 1 else values for values in (scaling.mean, scaling.std))
    how = {"mean": mean, "std": std, "bgr": scaling.bgr}
    return read_data(Data.model_validate({"train": str(path), "validation": str(path), **how}), shape)[0]
