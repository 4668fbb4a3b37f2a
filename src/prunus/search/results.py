"""What a search leaves in its folder: the smaller network, widths before and after, and how they came about."""

import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from ruamel.yaml import YAML

from prunus.extras import missing_package
from prunus.runtime.atomic import write_atomically
from prunus.search.branches import branched, merge
from prunus.search.choose import amount
from prunus.search.costs import macs, weights
from prunus.search.pas import WidthSearch
from prunus.search.recipe import Budget
from prunus.search.times import compiled
from prunus.search.trainer import SearchRun
from prunus.training.export import export_onnx
from prunus.training.recipe import recipe_text
from prunus.training.shrink.follow import find_groups
from prunus.training.shrink.groups import Groups

MODEL, ARTEFACT, WIDTHS, PLOT = "found.onnx", "found.prunus", "widths.yaml", "widths.svg"
REPORT, RECIPE = "report.json", "recipe.yaml"


@final
@dataclass(frozen=True)
class LayerWidth:
    """A layer's filters, and why they may not go or go together only."""

    weight: str
    before: int
    after: int
    note: str = ""


@final
@dataclass(frozen=True)
class Outcome:
    """Before and after: multiply-adds, weights, milliseconds as measured. scores: as text. cost, budget: as shares."""

    layers: tuple[LayerWidth, ...]
    macs: tuple[float, float]
    weights: tuple[float, float]
    ms: tuple[float, float]
    cost: float
    budget: float
    scores: dict[str, dict[str, float | None]]
    spent_s: dict[str, float]


def write(run: SearchRun) -> Outcome:
    """found.onnx, tried; found.prunus, compiled for this machine; widths.yaml, widths.svg, report.json, recipe.yaml.

    Raises ExportError, OutputError, ShrinkError: as their names say. MissingExtraError: matplotlib isn't installed;
    all but widths.svg is written then.
    """
    search, found, folder, x = run.search, run.found, run.output, run.example()
    assert search is not None and found is not None
    smaller = search.shrink().eval()
    export_onnx(smaller, folder / MODEL, x)
    made = compiled(smaller, x, run.threads)
    made.session.save(folder / ARTEFACT)
    dense_ms = run.dense_ms or compiled(merge(run.plain) if branched(run.plain) else run.plain, x, run.threads).ms
    groups = find_groups(smaller, x)
    outcome = Outcome(
        tuple(layer_widths(search.groups, found.widths)),
        (macs(search.groups).whole / len(x), macs(groups).whole / len(x)),
        (weights(search.groups).whole, weights(groups).whole),
        (dense_ms, made.ms), found.cost, found.budget,
        {name: {"loss": score.loss, "accuracy": score.accuracy} for name, score in run.scores.items()},
        dict(run.spent_s),
    )  # fmt: skip
    write_atomically(folder / RECIPE, recipe_text(run.recipe).encode())
    write_atomically(folder / WIDTHS, widths_text(outcome).encode())
    write_atomically(folder / REPORT, (json.dumps(asdict(outcome), indent=2) + "\n").encode())
    if search.history:
        write_atomically(folder / PLOT, plot(search))
    return outcome


def layer_widths(groups: Groups, widths: dict[str, tuple[int, int]]) -> list[LayerWidth]:
    """In the order of the network."""
    return [LayerWidth(name, before, after, note(groups, name)) for name, (before, after) in widths.items()]


def note(groups: Groups, name: str) -> str:
    """What limits a layer's widths; "" where nothing does."""
    if (name, 0) in groups.counts and name in groups.widths:
        steps = groups.counts[name, 0]
        step = int(np.gcd.reduce(steps[steps > 0])) if (steps > 0).any() else 1
        if step > 1:
            return f"grouped: widths are multiples of {step}"
    return groups.reasons.get(name, "")


def widths_text(outcome: Outcome) -> str:
    """YAML: of each layer by its weight's name filters before and after."""
    yaml, stream = YAML(), io.StringIO()
    yaml.default_flow_style = None
    yaml.dump({
        "budget": float(outcome.budget), "cost": float(outcome.cost), "ms": [float(ms) for ms in outcome.ms],
        "layers": {layer.weight: [layer.before, layer.after] for layer in outcome.layers},
    }, stream)  # fmt: skip
    return stream.getvalue()


def plot(search: WidthSearch) -> bytes:
    """SVG: the share of channels that live over the steps of the search, a line per bundle named by its first layer."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise missing_package("the plot of widths", error) from error
    mpl.rcParams["svg.hashsalt"] = "prunus"  # the same bytes each time
    groups, history = search.groups, np.array(search.history)
    steps = search.every * np.arange(1, len(history) + 1)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    colors = mpl.colormaps["viridis"](np.linspace(0, 0.95, len(groups.bundles)))
    for number, members in enumerate(groups.bundles):
        label = f"{first_layer(groups, int(members[0]))}, {len(members)}"
        axes.plot(steps, history[:, number] / len(members), color=colors[number], label=label, linewidth=1)
    axes.set(xlabel="step of the search", ylabel="channels that live, share", ylim=(0, 1.02))
    limit = f"{search.budget:.1%} of the {search.cost.unit}"
    if search.cost.unit == "ms":
        limit = amount(search.cost, search.budget)
    axes.set_title(f"widths under a budget of {limit}")
    axes.legend(fontsize=6, loc="center left", bbox_to_anchor=(1, 0.5), ncols=1 + len(groups.bundles) // 30)
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()


def first_layer(groups: Groups, group: int) -> str:
    """The first layer that makes channels of a group, without ".weight"."""
    keys = (key for key in groups.filters if key in groups.counts and groups.counts[key][group])
    return next((name.removesuffix(".weight") for name, _ in keys), "inputs")


def met(outcome: Outcome, budget: Budget) -> str:
    """What it costs and what it was to cost, in the budget's terms."""
    if budget.latency is not None:
        return f"{outcome.ms[1]:.4g} ms, budget {budget.latency:g} ms"
    return f"{outcome.cost:.2%} of the whole cost, budget {outcome.budget:.2%}"


def summary(outcome: Outcome, folder: Path) -> dict[str, Any]:
    """As `--json` has it."""
    return {"output": str(folder), **asdict(outcome)}
