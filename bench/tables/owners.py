"""For owners: fingerprints and universal perturbations."""

import numpy as np

from bench import store
from bench.tables.notes import machines


def fingerprint_table(rows: list[store.Row]) -> str:
    """What was asked of fingerprints."""
    from bench import fingerprint

    lines = fingerprint.table(rows)
    if not lines:
        return "Not measured yet: `python -m bench.fingerprint`."
    head = ["| figure | measured | asked | |", "|---|---|---|---|"]
    verdicts = {True: "pass", False: "short", None: ""}
    body = [f"| {line.what} | {line.found} | {line.asked} | {verdicts[line.met]} |" for line in lines]
    return "\n".join([*head, *body, "", *machines(list(store.latest(rows).values()))])


def fingerprint_kinds_table(rows: list[store.Row]) -> str:
    """Scores of every kind of examples, means over owners and draws."""
    from bench import fingerprint

    found = list(store.latest(rows).values())
    lines = [
        "| examples | robustness | transferability | Uniqueness Score | worst descendant | worst independent "
        "| area under ROC | recognised | false positives | fingerprints |", "|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for way in fingerprint.WAYS:
        of = fingerprint.of_kind(found, way.name)
        if of:
            fields = ("robustness", "transferability", "uniqueness")
            means = " | ".join(f"{_mean(of, f):.3f} ± {_deviation(of, f):.3f}" for f in fields)
            wrong = len({name for row in of for name in row["false_positives"]})
            ends = f"{min(row['least'] for row in of):.2f} | {max(row['most'] for row in of):.2f}"
            lines.append(
                f"| {way.name} | {means} | {ends} | "
                f"{_mean(of, 'area'):.3f} | {_mean(of, 'recognised_of_all', 100):.0f} % | {wrong} | {len(of)} |"
            )
    for row in (row for row in found if row.get("kind") == "deepjudge"):
        for name in ("robustness distance", "divergence"):
            lines.append(
                f"| DeepJudge, {name}, {row['owner']} | - | - | - | - | - | {row[name]['area']:.3f} | "
                f"{row[name]['recognised_of_all']:.0%} | {len(row[name]['false_positives'])} | |"
            )
    imagenet = [row for row in found if row["key"].startswith("lite0")]
    for row in imagenet:
        lines.append(
            f"| EfficientNet-lite0, {row['kind']} | {row['robustness']:.3f} | {row['transferability']:.3f} | "
            f"{row['uniqueness']:.3f} | {row['least']:.2f} | {row['most']:.2f} | - | {row['recognised_of_all']:.0%} | "
            f"{len(row['false_positives'])} | |"
        )
    return "\n".join(lines) if len(lines) > 2 else "Not measured yet: `python -m bench.fingerprint`."


def fingerprint_attacks_table(rows: list[store.Row]) -> str:
    """Matches after each change of inputs, by a descendant; means over owners."""
    from bench import fingerprint

    found = [row for row in store.latest(rows).values() if "transforms" in row]
    kinds = [way.name for way in fingerprint.WAYS if any(row["kind"] == way.name for row in found)]
    if not kinds:
        return "Not measured yet: `python -m bench.fingerprint`."
    lines = [f"| change of inputs | {' | '.join(f'{kind}, bcr-80' for kind in kinds)} |", "|---|" + "---|" * len(kinds)]
    of = {kind: [row for row in found if row["kind"] == kind] for kind in kinds}
    for name in found[0]["transforms"]:
        cells = [f"{np.mean([100 * row['transforms'][name]['bcr-80'] for row in of[kind]]):.0f}" for kind in kinds]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    needed = [[row["needed"] or fingerprint.N + 1 for row in of[kind]] for kind in kinds]  # no number is enough
    cells = [f"{np.mean(n):.0f}" if max(n) <= fingerprint.N else f"over {fingerprint.N}" for n in needed]
    lines.append(f"| needed | {' | '.join(cells)} |")
    cells = [f"{np.mean([row['detected'] for row in of[kind]]):.0%}" for kind in kinds]
    lines.append(f"| queries detected | {' | '.join(cells)} |")
    return "\n".join(lines)


def audit_table(rows: list[store.Row]) -> str:
    """What was asked of audits, as far as it is measured."""
    from bench import uap

    found = uap.goals(store.latest(rows))
    if not found:
        return "Not measured yet: `python -m bench.uap`."
    lines = [f"| {goal.name} | {goal.found} | {'pass' if goal.met else 'short'} |" for goal in found]
    head = ["| figure | found | |", "|---|---|---|"]
    return "\n".join([*head, *lines, "", *machines(list(store.latest(rows).values()))])


def _deviation(rows: list[store.Row], name: str) -> float:
    return float(np.std([row[name] for row in rows]))


def _mean(rows: list[store.Row], name: str, scale: float = 1.0) -> float:
    return scale * sum(float(row[name]) for row in rows) / len(rows)
