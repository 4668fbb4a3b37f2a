"""Recurrent networks: times, and what pruning costs in answers."""

from bench import store
from bench.tables.notes import left_out, machines


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
    return "\n".join([*lines, "", *machines(shown), *left_out(shown)])


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
    return "\n".join([*lines, "", *_peer(times), *machines([times or rows[-1]])])


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
    return "\n".join([*lines, "", *machines(found[-1:])]) if found else "Not measured yet: `python -m bench.g2p`."


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
    return "\n".join([*lines, "", *_peer(times), *machines([times or found[-1]])])


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
