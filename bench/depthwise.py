"""Depthwise layers by either way, one layer at a time: rows of taps (with phase planes for stride 2) and the kernel of
their own.

    python bench/depthwise.py    # about a minute; writes bench/results/depthwise.jsonl

The shapes are those of MobileNetV2 and EfficientNet-lite0 at 224 x 224, batch 1, one thread, fp32. Both ways are
measured in turns by the tuner, "full"; `rows_ms` is the fastest of the rows' candidates.
"""

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import prunus
from prunus.runtime.cpu import describe

sys.path.insert(0, str(Path(__file__).parent))
from zoo import Builder

RESULTS = Path(__file__).parent / "results" / "depthwise.jsonl"
# channels, height and width, kernel, stride
LAYERS = (
    (32, 112, 3, 1), (96, 112, 3, 2), (144, 56, 3, 1), (144, 56, 3, 2), (192, 28, 3, 1), (192, 28, 3, 2),
    (384, 14, 3, 1), (576, 14, 3, 1), (576, 14, 3, 2), (960, 7, 3, 1), (144, 56, 5, 2), (240, 28, 5, 1),
    (480, 14, 5, 1), (672, 14, 5, 1), (672, 14, 5, 2), (1152, 7, 5, 1), (1152, 7, 3, 1),
)  # fmt: skip


def measure(channels: int, size: int, kernel: int, stride: int) -> dict[str, Any]:
    """Milliseconds of a layer with its clip, by both ways."""
    builder = Builder("layer", channels, size, 1)
    x = builder.add("Relu", ["x"], channels, size)
    builder.conv(x, channels, kernel, stride, group=channels, act="relu6")
    session = prunus.compile(builder.model(), threads=1, tune="full")
    (row,) = [row for row in session.explain() if row.op == "conv"]
    ways: dict[str, float] = {}
    for name, reason in ((row.kernel, row.reason), *row.refused):
        found = re.search(r"measured.* ([0-9.]+) ms", reason)
        assert found, reason
        way = name.split()[0].rstrip(",")
        ways[way] = min(float(found[1]), ways.get(way, float("inf")))
    layer = {"channels": channels, "size": size, "kernel": kernel, "stride": stride}
    return {**layer, "rows_ms": ways["rows"], "depthwise_ms": ways["depthwise"]}


def main() -> None:
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    cpu = describe()
    head = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": cpu.name,
        "target": cpu.best_target,
        "commit": commit,
    }
    rows = [head | measure(*layer) for layer in LAYERS]
    for row in rows:
        shape = "{channels:5} x {size:3}, {kernel}x{kernel} stride {stride}".format(**row)
        print(f"{shape}: rows {row['rows_ms']:.3f} ms, depthwise {row['depthwise_ms']:.3f} ms")
    RESULTS.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
