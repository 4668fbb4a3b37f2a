"""Tables and plots of the documents from committed results, without measuring anything.

    python -m bench.report            # rewrites what is between the markers of DOCUMENTS, draws docs/*.svg
    python -m bench.report --check    # exit status 1 where a table would change

A table is between `<!-- table:NAME -->` and `<!-- /table -->`.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from bench import curves, engines, goals, store

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
    notes = _machines(shown) + _left_out(shown)
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
    notes = _machines(shown) + _left_out(shown)
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
    return "\n".join([*lines, "", *_machines(shown)])


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


def training_table(rows: list[store.Row]) -> str:
    """What pruning cost in test accuracy, by scheme and network: mean of the seeds, and largest less smallest."""
    from bench import training  # torch, which the other tables do without

    lines = ["| network | scheme, sparsity | drop in points (spread, seeds) | at most | |", "|---|---|---|---|---|"]
    for line in training.table(rows):
        found = f"**{line.drop:.2f}** ({line.spread:.2f}, {line.seeds})"
        lines.append(f"| {line.network} | {line.what} | {found} | {line.bound} | {line.verdict} |")
    if len(lines) == 2:
        return "Not measured yet: `python -m bench.training`."
    dense = [row for row in store.latest(rows).values() if " dense " in row["key"]]
    for network in dict.fromkeys(row["network"] for row in dense):
        mine = [row for row in dense if row["network"] == network]
        accuracy, macs = _mean(mine, "accuracy", 100), _mean(mine, "macs", 1e-6)
        lines.append(f"\n{network}, dense: {accuracy:.2f} % (mean of {len(mine)}), {macs:.1f} million multiply-adds.")
    return "\n".join([*lines, "", *_machines(dense[-1:])])


def recurrent_table(rows: list[store.Row]) -> str:
    """Each goal of pruned recurrent layers beside the fastest peer, by `Session.run` and by the executor alone."""
    from bench import recurrent

    found, shown = store.latest(row for row in rows if not row["quick"]), []
    lines = [
        "| row | Prunus, us | fastest peer, us | asked | measured (quartiles) | | executor | indices over values |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for goal in recurrent.GOALS:
        row = found.get(f"{goal.name}, 1 threads")
        if row is None or "failure" in row:
            continue
        shown.append(row)
        peer = min(row["ratios"]["prunus"], key=lambda name, row=row: row["ratios"]["prunus"][name][1])
        lower, median, upper = row["ratios"]["prunus"][peer]
        asked = "-" if goal.least is None else f"at least {goal.least:g} x"
        verdict = "" if goal.least is None else "pass" if median >= goal.least else "short"
        ratios = row["ratios"].get("executor", {}).values()
        alone = f"{min(ratio[1] for ratio in ratios):.2f}" if ratios else "-"
        of = f" of {goal.executor:g}" if goal.executor else ""
        lines.append(
            f"| {goal.name} | {row['us']['prunus']:.1f} | {row['us'][peer]:.0f} ({peer}) | {asked} | "
            f"**{median:.2f}** ({lower:.2f} to {upper:.2f}) | {verdict} | {alone}{of} | {row['index_share']:.1%} |"
        )
    if not shown:
        return "Not measured yet: `python -m bench.recurrent`."
    return "\n".join([*lines, "", *_machines(shown), *_left_out(shown)])


def speech_table(rows: list[store.Row]) -> str:
    """Spoken digits by rate: accuracy over seeds, and a frame's time beside the dense network's in onnxruntime."""
    from bench import speech

    lines = [
        "| GRU | accuracy (seeds; lowest to highest) | points below dense | at most | | us a frame | times as fast |",
        "|---|---|---|---|---|---|---|",
    ]
    for line in speech.table(rows):
        found = f"{line.accuracy:.2%} ({line.seeds}; {line.lowest:.2%} to {line.highest:.2%})"
        drop = "-" if line.rate == 1 else f"**{line.drop:.2f}**"
        bound = speech.BOUNDS.get(line.rate, "")
        lines.append(f"| {line.what} | {found} | {drop} | {bound} | {line.verdict} | {_frame(line.us, line.ratio)} |")
    if len(lines) == 2:
        return "Not measured yet: `python -m bench.speech`."
    times = store.latest(rows).get(speech.TIMES)
    return "\n".join([*lines, "", *_peer(times), *_machines([times or rows[-1]])])


def g2p_table(rows: list[store.Row]) -> str:
    """Error rates by rate, with retraining and without."""
    from bench import g2p

    lines = [
        "| GRUs | zeros | phoneme error rate | words right | error rate without retraining | epochs |",
        "|---|---|---|---|---|---|",
    ]
    found = g2p.table(rows)
    for row in found:
        one_shot = f"{row['one_shot_per']:.1%}" if "one_shot_per" in row else "-"
        what, epochs = row["key"].replace(f" {g2p.METHOD}", ""), row.get("epochs", "-")
        lines.append(
            f"| {what} | {row['zeros']:.1%} | **{row['per']:.2%}** | {row['words']:.1%} | {one_shot} | {epochs} |"
        )
    return "\n".join([*lines, "", *_machines(found[-1:])]) if found else "Not measured yet: `python -m bench.g2p`."


def voice_table(rows: list[store.Row]) -> str:
    """Agreement of embeddings by rate, and a frame's time."""
    from bench import voice

    lines = [
        "| LSTM | Prunus to torch | onnxruntime to torch | pruned to dense | nearest in the same language | us a frame "
        "| times as fast |",
        "|---|---|---|---|---|---|---|",
    ]
    found, times = voice.table(rows)
    for row in found:
        name, cosines = f"{row['rate']}x", row["cosines"]
        us, ratio = (times["us"][name], times["ratios"][name]) if times else (None, None)
        what = "dense" if row["rate"] == 1 else f"{voice.SCHEME}, {name}"
        lines.append(
            f"| {what} | {cosines['prunus']:.6f} | {cosines['onnxruntime']:.6f} | {row['to_dense']:.3f} | "
            f"{row['neighbours']:.1%} | {_frame(us, ratio)} |"
        )
    if not found:
        return "Not measured yet: `python -m bench.voice`."
    return "\n".join([*lines, "", *_peer(times), *_machines([times or found[-1]])])


def _frame(us: float | None, ratio: list[float] | None) -> str:
    """Two cells: microseconds, and how many times as fast as the dense network in onnxruntime."""
    if us is None or ratio is None:
        return "- | -"
    lower, median, upper = ratio
    return f"{us:.1f} | **{median:.1f}** ({lower:.1f} to {upper:.1f})"


def _peer(times: store.Row | None) -> list[str]:
    """What the times as fast are relative to."""
    if times is None:
        return []
    return [f"onnxruntime, dense, states fed: {times['us']['onnxruntime 1x']:.1f} us a frame, one thread.", ""]


def widths_table(rows: list[store.Row]) -> str:
    """Quality by method at equal multiply-adds and epochs, means of seeds; one row per network and budget."""
    from bench import widths  # torch

    lines = [
        "| network, multiply-adds removed | dense | " + " | ".join(widths.METHODS) + " | pas by time | ms | "
        "search epoch | seeds |",
        "|---|---|" + "---|" * (len(widths.METHODS) + 4),
    ]
    for line in widths.table(rows):
        scale, digits = (1, 2) if line.network == "translation" else (100, 2)
        found = [line.quality.get(name) for name in (*widths.METHODS, "pas-latency")]
        cells = ["-" if value is None else f"{value * scale:.{digits}f}" for value in found]
        lines.append(
            f"| {line.network}, {line.removed:.0%} | {line.dense * scale:.{digits}f} | **{cells[0]}** | "
            f"{' | '.join(cells[1:])} | {line.ms:.3f} | {line.pace:.2f} x | {line.seeds} |"
        )
    if len(lines) == 2:
        return "Not measured yet: `python -m bench.widths`."
    lines.append(
        "\nTest accuracy in %; of segmentation the mean intersection over union in %, of translation PSNR in dB. "
        "pas by time: its budget is the milliseconds (ms) that pas by multiply-adds takes. search epoch: its time over "
        "that of an epoch of fine-tuning."
    )
    return "\n".join([*lines, "", *_machines(rows[-1:])])


def fingerprint_table(rows: list[store.Row]) -> str:
    """What was asked of fingerprints."""
    from bench import fingerprint

    lines = fingerprint.table(rows)
    if not lines:
        return "Not measured yet: `python -m bench.fingerprint`."
    head = ["| figure | measured | asked | |", "|---|---|---|---|"]
    verdicts = {True: "pass", False: "short", None: ""}
    body = [f"| {line.what} | {line.found} | {line.asked} | {verdicts[line.met]} |" for line in lines]
    return "\n".join([*head, *body, "", *_machines(list(store.latest(rows).values()))])


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
    return "\n".join([*head, *lines, "", *_machines(list(store.latest(rows).values()))])


def mapping_table(rows: list[store.Row]) -> str:
    """What plans promise, and what was measured."""
    found = store.latest(rows)
    promises = {key: row for key, row in found.items() if key.startswith("promise")}
    predictions = [(key.split()[1], abs(row["value"])) for key, row in found.items() if key.startswith("predict")]
    if not found:
        return "Not measured yet: `python -m bench.mapping`."
    lines = [
        f"| {key.split()[1]}, `--speedup 4`, {key.split()[2]}: times as fast as dense | {row['value']:.2f} "
        f"({row['times_dense'][0]:.2f} to {row['times_dense'][2]:.2f}) | at least 3.6 | {_mark(row)} |"
        for key, row in promises.items()
    ]
    for network in dict.fromkeys(name for name, _ in predictions):
        errors = sorted(error for name, error in predictions if name == network)
        lines.append(
            f"| {network}, {len(errors)} random plans: predicted against measured, median and worst "
            f"| {errors[len(errors) // 2]:.1%} and {errors[-1]:.1%} | at most 10 % "
            f"| {'pass' if errors[-1] <= 0.1 else 'short'} |"
        )
    for key, row in found.items():
        if key.startswith("even"):
            lines.append(
                f"| {key.split()[1]}, by rules: the slowest pruned layer over the same one dense, in the network "
                f"| {row['value']:.2f} | at most 1 | {_mark(row)} |"
            )
        elif key.startswith("warm"):
            lines.append(
                f"| {key.split()[1]}, by rules, table warm: seconds | {row['value']:.1f} | at most 60 | {_mark(row)} |"
            )
    head = ["| figure | measured | asked | |", "|---|---|---|---|"]
    return "\n".join([*head, *lines, "", *_machines(list(found.values()))])


def _mark(row: store.Row) -> str:
    return "pass" if row["pass"] else "short"


def _deviation(rows: list[store.Row], name: str) -> float:
    return float(np.std([row[name] for row in rows]))


def _mean(rows: list[store.Row], name: str, scale: float = 1.0) -> float:
    return scale * sum(float(row[name]) for row in rows) / len(rows)


def _machines(rows: list[store.Row]) -> list[str]:
    """A line on each machine and commit; the first rows of curves said less."""
    texts = (
        f"{store.machine_text(row)}; {row['date'][:10]}, {row['commit']}"
        if "commit" in row
        else f"{row['machine']['name']} ({row['machine']['target']}, {row['machine']['cores']} cores); {row['date']}"
        for row in rows
    )
    return [f"Measured on {text}." for text in dict.fromkeys(texts)]


def _left_out(rows: list[store.Row]) -> list[str]:
    return [f"Left out: {text}." for text in dict.fromkeys(t for row in rows for t in row.get("left_out", {}).values())]


TABLES: Mapping[str, Callable[[], str]] = {
    "goals": lambda: goals_table(store.read(goals.RESULTS)),
    "engines": lambda: engines_table(store.read(engines.RESULTS)),
    "schemes": lambda: schemes_table(store.read(curves.RESULTS)),
    "accuracy": lambda: accuracy_table(store.read(store.RESULTS / "accuracy.jsonl")),
    "widths": lambda: widths_table(store.read(store.RESULTS / "widths.jsonl")),
    "fingerprint": lambda: fingerprint_table(store.read(store.RESULTS / "fingerprint.jsonl")),
    "fingerprint-kinds": lambda: fingerprint_kinds_table(store.read(store.RESULTS / "fingerprint.jsonl")),
    "fingerprint-attacks": lambda: fingerprint_attacks_table(store.read(store.RESULTS / "fingerprint.jsonl")),
    "audit": lambda: audit_table(store.read(store.RESULTS / "uap.jsonl")),
    "mapping": lambda: mapping_table(store.read(store.RESULTS / "mapping.jsonl")),
    "training": lambda: training_table(store.read(store.RESULTS / "training.jsonl")),
    "recurrent": lambda: recurrent_table(store.read(store.RESULTS / "recurrent.jsonl")),
    "speech": lambda: speech_table(store.read(store.RESULTS / "speech.jsonl")),
    "g2p": lambda: g2p_table(store.read(store.RESULTS / "g2p.jsonl")),
    "voice": lambda: voice_table(store.read(store.RESULTS / "voice.jsonl")),
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
    if rows := store.latest(store.read(store.RESULTS / "fingerprint.jsonl")):
        from bench import fingerprint

        fingerprint.draw_roc(list(rows.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
