"""Tables of the README from committed results, without measuring anything.

    python -m bench.report            # rewrites what is between the README's markers
    python -m bench.report --check    # exit status 1 where that would change it

A table is between `<!-- table:NAME -->` and `<!-- /table -->`.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from bench import goals, store

README = store.ROOT / "README.md"


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
    machines = dict.fromkeys(f"{store.machine_text(row)}; {row['date'][:10]}, {row['commit']}" for row in shown)
    missing = dict.fromkeys(text for row in shown for text in row.get("left_out", {}).values())
    notes = [f"Measured on {text}." for text in machines] + [f"Left out: {text}." for text in missing]
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


TABLES: Mapping[str, Callable[[], str]] = {"goals": lambda: goals_table(store.read(goals.RESULTS))}


def fill(text: str, tables: Mapping[str, Callable[[], str]] = TABLES) -> str:
    """`text` with the table of each marker that it has written anew; other text stays as it is."""
    for name, table in tables.items():
        start = f"<!-- table:{name} -->"
        if start in text:
            before, rest = text.split(start, 1)
            _, end, after = rest.partition("<!-- /table -->")
            assert end, f"{start} isn't closed by <!-- /table -->"
            text = f"{before}{start}\n{table()}\n{end}{after}"
    return text


def main(readme: Path = README) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, say whether the README is up to date")
    arguments = parser.parse_args()
    before = readme.read_text()
    after = fill(before)
    if arguments.check:
        return int(before != after)
    readme.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
