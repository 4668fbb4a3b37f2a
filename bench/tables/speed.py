"""Speed: goals, engines side by side, schemes, what precision costs."""

from bench import curves, engines, goals, store
from bench.tables.notes import left_out, machines


def goals_table(rows: list[store.Row]) -> str:
    """Each goal at each number of threads that was measured in full, with its marks; the last measurement counts."""
    found = store.latest(row for row in rows if not row["quick"])
    names = {goal.name: goal for goal in goals.GOALS}
    lines = ["| row | threads | Prunus, ms | asked | measured (quartiles) | |", "|---|---|---|---|---|---|"]
    shown = []
    for row in found.values():
        goal = names.get(row["key"].rpartition(", ")[0])
        if goal is None:
            continue
        shown.append(row)
        own = row.get("ms", {}).get("prunus")
        for limit, mark in zip(goal.limits, goals.marks(goal, row), strict=True):
            measured = "-" if mark.found is None else f"**{mark.found:.2f}** {_spread(limit, row)}".strip()
            ms = "-" if own is None else f"{own:.1f}"
            lines.append(
                f"| {goal.name} | {row['threads']} | {ms} | {mark.text} | {measured} | {mark.verdict} |"
            )  # fmt: skip
    if not shown:
        return "Not measured yet: `python -m bench.goals`."
    notes = machines(shown) + left_out(shown)
    notes += dict.fromkeys(f"Not supported here: {row['unsupported']}." for row in shown if "unsupported" in row)
    return "\n".join([*lines, "", *notes])


def _spread(limit: goals.Limit, row: store.Row) -> str:
    """The quartiles of the number that a limit is about, in brackets; empty where there are none."""
    if limit.against == "value":
        lower, upper = row.get("quartiles", (None, None))
    elif limit.against == "best":
        lower, _, upper = min(row["ratios"].values(), key=lambda ratio: ratio[1])
    else:
        lower, _, upper = row["ratios"][limit.against]
    return "" if lower is None else f"({lower:.2f} to {upper:.2f})"


def engines_table(rows: list[store.Row]) -> str:
    """Each engine's milliseconds and Prunus beside it, a column per row of results of one machine."""
    cases = engines.cases()
    found = store.of_one_machine((row for row in rows if not row["quick"]), lambda row: set(cases))
    keys = [key for key in cases if key in found]
    if not keys:
        return "Not measured yet: `python -m bench.engines`."
    names = [name for name in engines.ENGINES if any(name in found[key].get("ms", {}) for key in keys)]
    lines = ["| engine | " + " | ".join(key.replace("1 threads", "1 thread") for key in keys) + " |"]
    lines.append("|---" * (1 + len(keys)) + "|")
    for name in names:
        lines.append(f"| {name} | " + " | ".join(_beside(found[key], name) for key in keys) + " |")
    shown = [found[key] for key in keys]
    notes = machines(shown) + left_out(shown)
    notes += [f"Failed: {key}: {found[key]['failure']}." for key in keys if "failure" in found[key]]
    return "\n".join([*lines, "", *notes])


def _beside(row: store.Row, engine: str) -> str:
    """Milliseconds of an engine, and how many times as fast Prunus is."""
    if engine not in row.get("ms", {}):
        return "-"
    ms = f"{row['ms'][engine]:.1f} ms"
    if engine == "prunus":
        return f"**{ms}**"
    lower, median, upper = row["ratios"][engine]
    return f"{ms}, **{median:.2f}** ({lower:.2f} to {upper:.2f})"


def schemes_table(rows: list[store.Row]) -> str:
    """The bars of the curves' first panel, fastest first."""
    shown = [row for row in curves.shown(rows) if row["panel"] == "schemes"]
    if not shown:
        return "Not measured yet: `python -m bench.curves`."
    lines = [
        "| scheme | zeros of all weights | Prunus, ms | onnxruntime, ms | times as fast |",
        "|---|---|---|---|---|",
    ]
    for row in sorted(shown, key=lambda row: float(row["ms"]["prunus"])):
        own, other = row["ms"]["prunus"], row["ms"]["onnxruntime"]
        ratio = row["ratios"]["onnxruntime"][1] if "ratios" in row else other / own
        lines.append(f"| {row['scheme']} | {row['zeros']:.0%} | {own:.2f} | {other:.2f} | **{ratio:.2f}** |")
    return "\n".join([*lines, "", *machines(shown)])


def accuracy_table(rows: list[store.Row]) -> str:
    """Each network in each precision; of several trainings the mean. The newest rows of a network count."""
    groups: dict[tuple[str, str, str], dict[object, store.Row]] = {}
    for row in rows:
        way = row["network"], row["precision"], row["method"]
        groups.setdefault(way, {})[row.get("seed")] = row
    if not groups:
        return "Not measured yet: `python -m bench.accuracy`."
    lines = ["| network | precision | images | same answer as fp32 | relative error | points of accuracy lost |"]
    lines.append("|---|---|---|---|---|---|")
    for (network, precision, method), found in groups.items():
        newest = list(found.values())
        cells = [
            f"{_mean(newest, 'agreement', 100):.1f} %" if "agreement" in newest[0] else "-",
            f"{_mean(newest, 'relative_error'):.3f}" if "relative_error" in newest[0] else "-",
            f"{_mean(newest, 'points_lost'):.2f} of {_mean(newest, 'accuracy_fp32', 100):.2f}"
            if "points_lost" in newest[0]
            else "-",
        ]
        how = f"{precision} ({method})" if method else precision
        lines.append(f"| {network} | {how} | {newest[0]['images']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _mean(rows: list[store.Row], name: str, scale: float = 1.0) -> float:
    return scale * sum(float(row[name]) for row in rows) / len(rows)
