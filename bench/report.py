"""Tables and plots of the documents from committed results, without measuring anything.

    python -m bench.report            # rewrites what is between the markers of DOCUMENTS, draws docs/*.svg
    python -m bench.report --check    # exit status 1 where a table would change

A table is between `<!-- table:NAME -->` and `<!-- /table -->`.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench import curves, engines, goals, store
from bench.tables import owners, pruning, recurrent, speed

DOCUMENTS = tuple(
    store.ROOT / name
    for name in (
        "README.md",
        "docs/benchmarks.md",
        "docs/training.md",
        "docs/speech.md",
        "docs/search.md",
        "docs/fingerprint.md",
        "docs/audit.md",
        "docs/mapping.md",
    )
)


TABLES: Mapping[str, Callable[[], str]] = {
    "goals": lambda: speed.goals_table(store.read(goals.RESULTS)),
    "engines": lambda: speed.engines_table(store.read(engines.RESULTS)),
    "schemes": lambda: speed.schemes_table(store.read(curves.RESULTS)),
    "accuracy": lambda: speed.accuracy_table(store.read(store.RESULTS / "accuracy.jsonl")),
    "widths": lambda: pruning.widths_table(store.read(store.RESULTS / "widths.jsonl")),
    "found": lambda: pruning.found_table(store.read(store.RESULTS / "widths.jsonl")),
    "fingerprint": lambda: owners.fingerprint_table(store.read(store.RESULTS / "fingerprint.jsonl")),
    "fingerprint-kinds": lambda: owners.fingerprint_kinds_table(store.read(store.RESULTS / "fingerprint.jsonl")),
    "fingerprint-attacks": lambda: owners.fingerprint_attacks_table(store.read(store.RESULTS / "fingerprint.jsonl")),
    "audit": lambda: owners.audit_table(store.read(store.RESULTS / "uap.jsonl")),
    "mapped": lambda: pruning.mapped_table(
        [*store.read(store.RESULTS / "training.jsonl"), *store.read(store.RESULTS / "mapped.jsonl")]
    ),
    "rule-two": lambda: pruning.rule_two_table(
        store.read(store.RESULTS / "rule_two.jsonl"),
        [*store.read(store.RESULTS / "training.jsonl"), *store.read(store.RESULTS / "mapped.jsonl")],
    ),
    "mapping": lambda: pruning.mapping_table(store.read(store.RESULTS / "mapping.jsonl")),
    "training": lambda: pruning.training_table(store.read(store.RESULTS / "training.jsonl")),
    "recurrent": lambda: recurrent.recurrent_table(store.read(store.RESULTS / "recurrent.jsonl")),
    "speech": lambda: recurrent.speech_table(store.read(store.RESULTS / "speech.jsonl")),
    "g2p": lambda: recurrent.g2p_table(store.read(store.RESULTS / "g2p.jsonl")),
    "voice": lambda: recurrent.voice_table(store.read(store.RESULTS / "voice.jsonl")),
}


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


def main(documents: Sequence[Path] = DOCUMENTS) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, say whether the tables are up to date")
    arguments = parser.parse_args()
    stale = False
    for document in filter(Path.exists, documents):
        before = document.read_text()
        after = fill(before)
        stale |= before != after
        if not arguments.check and before != after:
            document.write_text(after)
    if arguments.check:
        return int(stale)
    if points := curves.shown(store.read(curves.RESULTS)):
        curves.draw(points)
    if rows := store.latest(store.read(store.RESULTS / "frontier.jsonl")):
        from bench import frontier

        frontier.draw(list(rows.values()))
    if store.read(store.RESULTS / "mapped.jsonl"):
        from bench import mapped

        mapped.draw(mapped.known())
    if rows := store.latest(store.read(store.RESULTS / "fingerprint.jsonl")):
        from bench import fingerprint

        fingerprint.draw_roc(list(rows.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
