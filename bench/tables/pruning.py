"""Pruning with training, widths by search, schemes by rule."""

from bench import store, width_goals
from bench.tables.notes import machines


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
    return "\n".join([*lines, "", *machines(dense[-1:])])


def widths_table(rows: list[store.Row]) -> str:
    """Quality by method at equal multiply-adds and epochs, means of seeds; one row per network and budget."""
    lines = [
        "| network, multiply-adds removed | dense | " + " | ".join(width_goals.METHODS) + " | pas by time | ms | "
        "search epoch | seeds |",
        "|---|---|" + "---|" * (len(width_goals.METHODS) + 4),
    ]
    for line in width_goals.table(rows):
        scale, digits = (1, 2) if line.network == "translation" else (100, 2)
        found = [line.quality.get(name) for name in (*width_goals.METHODS, "pas-latency")]
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
        "that of an epoch of fine-tuning, the median.\n"
    )
    lines += ["| goal | measured | asked | |", "|---|---|---|---|"]
    lines += [
        f"| {each.what} | {each.value:.4g} | {each.asked} | {each.verdict} |"
        for each in width_goals.verdicts(rows)
        if each.value is not None
    ]
    return "\n".join([*lines, "", *machines(rows[-1:])])


def found_table(rows: list[store.Row]) -> str:
    """Widths of plain networks, layer by layer, as they were found with seed 0."""
    found = store.latest(rows)
    lines = [
        "| network, multiply-adds removed | widths found | million MACs | accuracy, % (one share for all) | ms |",
        "|---|---|---|---|---|",
    ]
    for row in found.values():
        if row.get("method") != "pas" or row["limit"] != "macs" or row["seed"] or not row["network"].startswith("pas-"):
            continue
        other = found.get(row["key"].replace(" pas ", " uniform "))
        beside = f" ({100 * other['quality']:.2f})" if other else ""
        widths = " ".join(map(str, width_goals.own_widths(row)))
        lines.append(
            f"| {row['network']}, {row['removed']:.0%} | {widths} | {row['macs'] / 1e6:.2f} | "
            f"{100 * row['quality']:.2f}{beside} | {row['ms']:.3f} |"
        )
    head, mine = lines[:2], sorted(lines[2:], key=lambda line: line.split("|")[1])
    return "\n".join([*head, *mine]) if mine else "Not measured yet: `python -m bench.widths`."


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
    return "\n".join([*head, *lines, "", *machines(list(found.values()))])


def mapped_table(rows: list[store.Row]) -> str:
    """Mapped networks beside those of one scheme, at equal accuracy; and the goals."""
    from bench import mapped  # torch, which the other tables do without

    found = store.latest(rows)
    lines = [
        "| network, mapped by | ms | times as fast as dense | drop in points (seeds) | as the best single scheme | "
        "as pattern-only |",
        "|---|---|---|---|---|---|",
    ]
    for line in mapped.lines(found):
        best = "-" if line.over_best is None else f"{line.over_best:.2f}, {line.best}"
        pattern = "-" if line.over_pattern is None else f"{line.over_pattern:.2f}"
        lines.append(
            f"| {line.network}, {line.way}, `--speedup {line.speedup:g}` | {line.ms:.4f} | {line.over_dense:.2f} | "
            f"{line.drop:.2f} ({line.seeds}) | {best} | {pattern} |"
        )
    if len(lines) == 2:
        return "Not measured yet: `python -m bench.mapped`."
    lines += ["", "| goal | measured | asked | |", "|---|---|---|---|"]
    for each in mapped.verdicts(found):
        value = "-" if each.value is None else f"{each.value:.2f}"
        lines.append(f"| {each.what} | {value} | {each.asked} | {each.verdict} |")
    return "\n".join([*lines, "", *machines([row for row in rows if row["key"].startswith("time ")][-1:])])


def rule_two_table(easy: list[store.Row], hard: list[store.Row]) -> str:
    """Pattern beside punched on an easy and on a hard data set."""
    from bench import rule_two  # torch, which the other tables do without

    lines = [
        "| data set | sparsity | pattern:4 over punched:8x4, points (smallest to largest) | seeds | better |",
        "|---|---|---|---|---|",
    ]
    for line in rule_two.table(easy, hard):
        spread = f"{min(line.gains):+.2f} to {max(line.gains):+.2f}"
        lines.append(
            f"| {line.data} | {line.sparsity:.0%} | {line.gain:+.2f} ({spread}) | {len(line.gains)} | {line.verdict} |"
        )
    return "\n".join([*lines, "", *machines(easy[-1:])])


def _mark(row: store.Row) -> str:
    return "pass" if row["pass"] else "short"


def _mean(rows: list[store.Row], name: str, scale: float = 1.0) -> float:
    return scale * sum(float(row[name]) for row in rows) / len(rows)
