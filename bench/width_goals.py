"""What rows of bench.widths come to: a line per network and budget, and the goals."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import mean, median

from bench import store
from bench.verdict import Verdict

METHODS = ("pas", "bn-gamma", "uniform", "magnitude")
BUDGETS = (0.5, 0.75)  # shares of multiply-adds removed that the goals are of


def own_widths(row: store.Row) -> list[int]:
    """Of a plain network layer by layer, but for the classifier; a depthwise layer has no width of its own."""
    layers = [after for _, after in row["widths"].values()][:-1]
    return layers[::2] if row["network"] == "pas-light" else layers


@dataclass(frozen=True)
class Line:
    """Of one network at one budget: mean quality by method, over the seeds that all of them have."""

    network: str
    removed: float
    dense: float
    quality: dict[str, float]
    seeds: int
    cost: float  # of pas
    ms: float
    pace: float  # seconds of an epoch of search over one of fine-tuning; the median, for runs are stopped now and then


def table(rows: list[store.Row]) -> list[Line]:
    """What is measured; "pas-latency" is the method with a budget of milliseconds."""
    found = [row for row in store.latest(rows).values() if "method" in row]
    lines = []
    for network, removed in dict.fromkeys((row["network"], row["removed"]) for row in found):
        mine = [row for row in found if (row["network"], row["removed"]) == (network, removed)]
        by_method: dict[str, dict[int, store.Row]] = {}
        for row in mine:
            name = row["method"] + ("-latency" if row["limit"] == "latency" else "")
            by_method.setdefault(name, {})[row["seed"]] = row
        seeds = set.intersection(*(set(rows) for rows in by_method.values()))
        if not seeds or "pas" not in by_method:
            continue
        pas = [by_method["pas"][seed] for seed in sorted(seeds)]
        pace = median(row["search_s"] / row["epochs"][0] / (row["finetune_s"] / row["epochs"][1]) for row in pas)
        quality = {name: mean(rows[seed]["quality"] for seed in seeds) for name, rows in by_method.items()}
        lines.append(Line(
            network, removed, mean(row["dense"] for row in pas), quality, len(seeds),
            mean(row["cost"] for row in pas), mean(row["ms"] for row in pas), pace,
        ))  # fmt: skip
    return lines


def verdicts(rows: list[store.Row]) -> list[Verdict]:
    """The goals: means over networks and budgets, the worst of what must hold for each network found. Points of
    accuracy; shares of 1."""
    lines = table(rows)
    classes = [line for line in lines if line.network in ("pas-vgg", "resnet") and line.removed in BUDGETS]
    found = [row for row in store.latest(rows).values() if row.get("method") == "pas"]
    by_macs, by_time = ([row for row in found if row["limit"] == limit] for limit in ("macs", "latency"))

    def over(other: str, method: str = "pas") -> float | None:
        gains = [100 * (q[method] - q[other]) for line in classes if {method, other} <= set(q := line.quality)]
        return mean(gains) if gains else None

    made = [
        Verdict("accuracy over BN-gamma, points", over("bn-gamma"), 0.3),
        Verdict("accuracy over uniform, points", over("uniform"), 0.3),
        Verdict("accuracy over magnitude, points", over("magnitude"), 0.0),
        Verdict("multiply-adds beside the budget, worst", _worst(r["cost"] / (1 - r["removed"]) for r in by_macs),
                0.01, True),
        Verdict("milliseconds beside the budget, worst", _worst(r["ms"] / r["budget_ms"] for r in by_time), 0.05, True),
        Verdict("accuracy by time over by multiply-adds at equal ms, points", over("pas", "pas-latency"), 0.0),
        Verdict("search over fine-tuning, time, median", median(r["search_s"] / r["finetune_s"] for r in found)
                if found else None, 1.5, True),
    ]  # fmt: skip
    for line in lines:
        if line.network in ("segmentation", "translation"):
            pas = line.quality["pas"]
            made.append(Verdict(f"{line.network}: quality over dense", pas / line.dense, 0.98))
            made.append(Verdict(f"{line.network}: quality over uniform", pas / line.quality["uniform"], 1.0))
    return made


def _worst(shares: Iterable[float]) -> float | None:
    return max((abs(share - 1) for share in shares), default=None)
