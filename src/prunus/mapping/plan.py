"""From a budget to a plan: which option each layer gets and why, as rows to show and as plan.yaml."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, final

import numpy as np
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from prunus.errors import BudgetError
from prunus.mapping.knapsack import least_loss, sparsest
from prunus.mapping.options import Sources, full_space
from prunus.mapping.rules import Terms, rule_0_stays, rule_1_depthwise, rule_based
from prunus.mapping.space import DENSE, LayerSpace, Option, Space

VERSION = 1
METHODS = ("rules", "exact")
SEARCHES = ("search", "tpe", "nsga2")  # see `searched`
UNITS = {"s": 1e3, "ms": 1.0, "us": 1e-3}


@final
@dataclass(frozen=True)
class Budget:
    """What a plan is to reach: milliseconds, times as fast as dense, or the share of zeros over all layers that can be
    pruned."""

    kind: Literal["latency", "speedup", "sparsity"]
    value: float

    def ms(self, space: Space) -> float:
        """The time that is left, of latency and speedup."""
        return self.value if self.kind == "latency" else space.dense_ms / self.value

    def __str__(self) -> str:
        return {"latency": "{:g} ms", "speedup": "{:g} x", "sparsity": "sparsity {:g}"}[self.kind].format(self.value)


@final
@dataclass(frozen=True)
class PlanRow:
    """A layer's part of a plan. ms: predicted in the network."""

    layer: LayerSpace
    option: Option
    reason: str


@final
@dataclass(frozen=True, eq=False)
class Plan:
    """What was decided. about: for the head of plan.yaml, in its order."""

    rows: tuple[PlanRow, ...]
    about: Mapping[str, Any]
    other_ms: float

    @property
    def predicted_ms(self) -> float:
        """Of the network."""
        return self.other_ms + sum(row.option.ms for row in self.rows)

    @property
    def dense_ms(self) -> float:
        """Of the network as it is."""
        return self.other_ms + sum(row.layer.dense_ms for row in self.rows)

    @property
    def sparsity(self) -> float:
        """Share of zeros over the weights of all layers that are pruned or could be."""
        sizes = [row.layer.n_weights for row in self.rows if len(row.layer.options) > 1]
        zeros = [row.layer.n_weights * row.option.sparsity for row in self.rows]
        return sum(zeros) / sum(sizes) if sizes else 0.0


def parse_budget(target_latency: str | None, speedup: str | None, sparsity: float | None) -> Budget:
    """The budget of the command line's texts: "8ms" ("8", "0.008s"), "5x" ("5"), 0.9. Exactly one is given.

    Raises BudgetError: none or several, or not such a number.
    """
    given = [name for name, value in (("--target-latency", target_latency), ("--speedup", speedup),
                                      ("--sparsity", sparsity)) if value is not None]  # fmt: skip
    if len(given) != 1:
        found = " and ".join(given) or "none"
        raise BudgetError(f"found {found}, expected one of --target-latency, --speedup and --sparsity")
    if target_latency is not None:
        match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(s|ms|us)?\s*", target_latency)
        if not match or not float(match[1]):
            raise BudgetError(f"--target-latency {target_latency!r}: expected a time, as 8ms")
        return Budget("latency", float(match[1]) * UNITS[match[2] or "ms"])
    if speedup is not None:
        match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*[xX]?\s*", speedup)
        if not match or not float(match[1]) >= 1:
            raise BudgetError(f"--speedup {speedup!r}: expected a factor of at least 1, as 5 or 5x")
        return Budget("speedup", float(match[1]))
    assert sparsity is not None
    if not 0 <= sparsity < 1:
        hint = f", did you mean {sparsity / 100:g}?" if 1 < sparsity < 100 else ""
        raise BudgetError(f"--sparsity {sparsity:g}: expected a fraction from 0 to below 1{hint}")
    return Budget("sparsity", sparsity)


def check_searchable(budget: Budget, method: str) -> None:
    """Raises BudgetError: searches are within a time."""
    if method in SEARCHES and budget.kind == "sparsity":
        raise BudgetError(f"--sparsity with --method {method}: expected --target-latency or --speedup")


def make_plan(sources: Sources, budget: Budget, method: str, terms: Terms) -> Plan:
    """The plan of least loss within the budget, over what the rules leave ("rules") or over everything ("exact").

    Raises BudgetError: it can't be met.
    """
    assert method in METHODS, method
    if method == "rules":
        ruled = rule_based(sources, terms)
        space, mapping = ruled.space, solve_or_say(sources, ruled.space, budget, terms)
        reasons = [ruled.reasons.get((layer.name, option.sparsity), "") for layer, option in _pairs(space, mapping)]
        return plan_of(sources, space, mapping, reasons, budget, method)
    stays = {site.name: rule_1_depthwise(site) or rule_0_stays(site, terms) for site in sources.network.sites}
    space = full_space(sources, terms.sparsities, lambda site: stays[site.name])
    if budget.kind == "sparsity":
        space = _fast_ones(space, terms.beta)
    mapping = solve_or_say(sources, space, budget, terms)
    reasons = [stays[layer.name] or _why_exact(layer, option) for layer, option in _pairs(space, mapping)]
    return plan_of(sources, space, mapping, reasons, budget, method)


def solve(space: Space, budget: Budget) -> tuple[int, ...]:
    """The mapping of least loss within a budget.

    Raises BudgetError: there is none.
    """
    if budget.kind == "sparsity":
        return sparsest(space, budget.value)
    return least_loss(space, budget.ms(space))


def plan_of(
    sources: Sources, space: Space, mapping: Sequence[int], reasons: Sequence[str], budget: Budget, method: str
) -> Plan:
    """The plan of a mapping, however it was found."""
    rows = tuple(
        PlanRow(layer, option, reason) for (layer, option), reason in zip(_pairs(space, mapping), reasons, strict=True)
    )
    network = sources.network
    about = {
        "machine": sources.machine, "target": network.isa.target, "threads": network.threads,
        "precision": network.precision, "method": method, "budget": str(budget),
    }  # fmt: skip
    return Plan(rows, about, space.other_ms)


def plan_text(plan: Plan) -> str:
    """plan.yaml: the same for the same plan. Reasons are comments."""
    document = CommentedMap({"version": VERSION, **plan.about})
    document["dense_ms"], document["predicted_ms"] = round(plan.dense_ms, 4), round(plan.predicted_ms, 4)
    layers = CommentedSeq()
    for row in plan.rows:
        item = _rule(row, row.layer.name)
        item |= {"dense_ms": round(row.layer.dense_ms, 5), "predicted_ms": round(row.option.ms, 5)}
        if row.option.loss is not None:
            item["sensitivity"] = row.option.loss
        layers.append(item)
        if row.reason:
            layers.yaml_set_comment_before_after_key(len(layers) - 1, before=row.reason, indent=2)
        for name in row.layer.sharing:
            layers.append(_rule(row, name))
            text = f"has its weights from {row.layer.name}, which counts for both"
            layers.yaml_set_comment_before_after_key(len(layers) - 1, before=text, indent=2)
    document["layers"] = layers
    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


def _rule(row: PlanRow, name: str) -> CommentedMap:
    """What becomes of a node."""
    rule = CommentedMap({"match": name})
    if row.layer.weight:
        rule["weight"] = row.layer.weight
    if row.option.scheme is None:
        rule["skip"] = True
    else:
        rule |= {"scheme": row.option.scheme, "sparsity": row.option.sparsity}
    return rule


def solve_or_say(sources: Sources, space: Space, budget: Budget, terms: Terms) -> tuple[int, ...]:
    """As `solve`; a budget out of reach is told with what could still be tried."""
    try:
        return solve(space, budget)
    except BudgetError as error:
        text = f"--speedup {budget.value:g}: {error}" if budget.kind == "speedup" else str(error)
        if not terms.ends and any(site.first or site.last for site in sources.network.sites):
            text += "; the first convolution and last classifier stay dense, --ends prunes them too"
        raise BudgetError(text) from error


def _pairs(space: Space, mapping: Sequence[int]) -> list[tuple[LayerSpace, Option]]:
    return list(zip(space.layers, space.chosen(mapping), strict=True))


def _why_exact(layer: LayerSpace, option: Option) -> str:
    if len(layer.options) == 1:
        return "rule 5: nothing is clearly faster than dense"
    if option.scheme is None:
        return f"exact: dense is best, of {len(layer.options)} options"
    same = [other for other in layer.options[DENSE + 1 :] if other.sparsity == option.sparsity]
    fastest = min(same, key=lambda other: other.ms)
    rival = f"; fastest at this sparsity {fastest.scheme} {fastest.ms:.4g} ms" if fastest is not option else ""
    return f"exact: best of {len(layer.options)} options{rival}"


def _fast_ones(space: Space, beta: float) -> Space:
    """Without options slower than (1 + beta) of the fastest of the same layer and sparsity: where zeros are what is
    asked for, they are still to pay."""
    layers = []
    for layer in space.layers:
        least: dict[float, float] = {}
        for option in layer.options:
            least[option.sparsity] = min(option.ms, least.get(option.sparsity, np.inf))
        kept = tuple(each for each in layer.options if each.ms <= (1 + beta) * least[each.sparsity])
        layers.append(replace(layer, options=kept))
    return Space(tuple(layers), space.other_ms)
