"""What stands below a table: machines, and engines that were left out."""

from bench import store


def machines(rows: list[store.Row]) -> list[str]:
    """A line on each machine, with dates and commits; the first rows of curves said less."""
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        if "commit" in row:
            found.setdefault(store.machine_text(row), {})[f"{row['date'][:10]}, {row['commit']}"] = None
        else:
            machine = f"{row['machine']['name']} ({row['machine']['target']}, {row['machine']['cores']} cores)"
            found.setdefault(machine, {})[row["date"]] = None
    return [f"Measured on {machine}; {'; '.join(when)}." for machine, when in found.items()]


def left_out(rows: list[store.Row]) -> list[str]:
    """A line on each engine that wasn't timed."""
    return [f"Left out: {text}." for text in dict.fromkeys(t for row in rows for t in row.get("left_out", {}).values())]
