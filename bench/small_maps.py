"""Convolutions over few pixels: pixels as lanes against rows as lanes, by the height of blocks.

    python -m bench.small_maps    # about a minute, on a quiet machine; writes bench/results/small_maps.jsonl

A 3x3 convolution inside of a network, fp32, one thread, 90 % zeros in random blocks, with each way that the compiler
knows for it pinned by a schedule in turn. Times are those of the profile: the least of several means.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from ruamel.yaml import YAML

import prunus
from bench import store
from bench.zoo import Builder
from prunus.compiler.choice import Choice, candidates, examine
from prunus.compiler.schedule import VERSION
from prunus.compiler.translate import layer_of, spell_out
from prunus.compiler.tune import layer_shape
from prunus.graph.read import read
from prunus.kernels.isa import isa_of
from prunus.runtime.cpu import describe
from prunus.sparsity.project import random_mask
from prunus.sparsity.scheme import parse

RESULTS = store.RESULTS / "small_maps.jsonl"
MAPS = ((160, 3), (112, 2), (64, 4), (64, 7))  # channels, height and width
BLOCKS = ("", "punched:4x1", "punched:8x1", "punched:16x1", "punched:32x1")
SPARSITY, ROUNDS, REPEATS = 0.9, 100, 20
LAYER = "conv1"


def network(channels: int, size: int, scheme: str) -> onnx.ModelProto:
    """Three convolutions, the second one with zeros."""
    builder = Builder("maps", 8, size, 1)
    x = builder.conv("x", channels, 3)
    builder.conv(builder.conv(x, channels, 3), 8, 3)
    model = builder.model()
    if scheme:
        (weight,) = [each for each in model.graph.initializer if each.name == f"{LAYER}.weight"]
        values = onnx.numpy_helper.to_array(weight)
        mask = random_mask(values.shape, parse(scheme), SPARSITY, 0)
        weight.CopyFrom(onnx.numpy_helper.from_array(np.where(mask, values, 0), weight.name))
    return model


def choices(model: onnx.ModelProto) -> Iterator[Choice]:
    """Those of the second convolution."""
    graph, isa = spell_out(read(model)), isa_of(describe().best_target or "")
    (node,) = [node for node in graph.nodes if node.name == LAYER]
    layer = layer_of(node, graph, isa)
    yield from candidates(layer_shape(layer, graph, isa, 1), examine(layer.encoded), isa)


def microseconds(model: onnx.ModelProto, choice: Choice) -> float:
    """Of the second convolution, computed so."""
    said = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(choice).items()}
    file = {"version": VERSION, "target": describe().best_target, "threads": 1, "layers": {LAYER: said}}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "schedule.yaml")
        YAML().dump(file, path)
        session = prunus.compile(model, threads=1, tune="off", schedule=path)
    shape = [1, *session.program.tensors["x"].shape[1:]]
    feeds = {"x": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    found = (session.profile(feeds, ROUNDS) for _ in range(REPEATS))
    return 1e3 * min(sum(row.ms for row in rows if row.node == LAYER) for rows in found)


def main() -> int:
    """Measure all."""
    rows = []
    for channels, size in MAPS:
        for scheme in BLOCKS:
            model = network(channels, size, scheme)
            best: dict[str, Any] = {}
            for choice in choices(model):
                way = "rows_us" if choice.encoding == "lanes" else "pixels_us"
                best[way] = min(best.get(way, float("inf")), round(microseconds(model, choice), 3))
            rows.append({"key": f"{channels} x {size}x{size} {scheme or 'dense'}", **best})
            print(rows[-1], flush=True)
    RESULTS.unlink(missing_ok=True)
    for row in rows:
        store.append(RESULTS, {**store.stamp(), **row})
    return 0


if __name__ == "__main__":
    sys.exit(main())
