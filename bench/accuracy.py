"""What int8 and bf16 cost in answers: agreement with fp32 on real networks, and test accuracy of small trained ones.

    python -m bench.accuracy [--probe probe.json] [--epochs 5] [--quick]   # appends to bench/results/accuracy.jsonl

A network whose rows were measured at this commit is skipped; without its data it is left out with a line.
EfficientNet-lite0 and SqueezeNet 1.1 with ImageNet weights on Debian's tuxpaint-stamps-default (under /usr/share, or
PRUNUS_DATA): `--probe` is a JSON list of {"file": path} to compare on, all stamps without it; int8 is calibrated on 34
stamps that aren't among them. Fashion-MNIST (Debian's dataset-fashion-mnist, in the same places): the demo's network,
dense and pruned to 90 % bcr:8x64 with retraining, on all 10,000 test images. bf16 is computed by the generic text of
its kernels where the CPU has no instructions for it: its rounding is what counts here.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.real import networks
from tests.real.test_real_networks import in_precision

import prunus
from bench import fashion, store
from prunus.compiler.calibrate import METHODS
from prunus.demo.data import _read_fashion, load_images
from prunus.demo.train import EXAMPLE, Schedule, make_network, recipe, steps_per_epoch, train
from prunus.runtime.session import Session
from prunus.training.export import export_onnx
from prunus.training.pruner import Pruner

RESULTS = store.RESULTS / "accuracy.jsonl"
CALIBRATION = 34
WAYS = (("bf16", ""), *(("int8", method) for method in METHODS))
Known = Callable[[str], bool]  # was a row of this key measured at this commit?
Array = NDArray[np.float32]


def stamps() -> list[Path]:
    """The stamps where they are installed."""
    roots = [Path("/"), Path(os.environ.get("PRUNUS_DATA", "/nowhere"))]
    return [path for root in roots for path in sorted((root / "usr/share/tuxpaint/stamps").rglob("*.png"))]


def picture(path: Path, size: int) -> Array:
    """float32[size, size, 3] of a cut-out on white, RGB 0..255."""
    image = Image.open(path).convert("RGBA")
    side = int(max(image.size) * 1.15)
    canvas = Image.new("RGBA", (side, side), (255, 255, 255, 255))
    canvas.alpha_composite(image, ((side - image.width) // 2, (side - image.height) // 2))
    return np.asarray(canvas.convert("RGB").resize((size, size), Image.Resampling.BICUBIC), np.float32)


def prepared(name: str, paths: list[Path]) -> Array:
    """The images as the network takes them."""
    if name == "efficientnet_lite0":
        pictures = np.stack([(picture(path, 224) - 127) / 128 for path in paths])
    else:
        pictures = np.stack([picture(path, 227)[..., ::-1] - np.float32([103.939, 116.779, 123.68]) for path in paths])
    return np.ascontiguousarray(pictures.transpose(0, 3, 1, 2), np.float32)


def outputs(session: Session, x: Array, name: str = "x") -> Array:
    """[n, classes], eight images at a time."""
    parts = [session.run(None, {name: x[i : i + 8]})[0] for i in range(0, len(x), 8)]
    return np.concatenate(parts).reshape(len(x), -1)


def real_networks(probe: list[str] | None, most: int | None, known: Known) -> Iterator[dict[str, Any]]:
    """Rows of agreement with fp32, on `most` images."""
    found = stamps()
    if not found:
        print("no stamps: apt install tuxpaint-stamps-default, or set PRUNUS_DATA")
        return
    chosen = [path for path in found if probe is None or any(str(path).endswith(name) for name in probe)][:most]
    rest = [path for path in found if path not in chosen] or found
    calibration = rest[:: max(len(rest) // CALIBRATION, 1)][:CALIBRATION]
    for name in ("efficientnet_lite0", "squeezenet"):
        keys = {way: f"{name} {' '.join(filter(None, way))}" for way in WAYS}
        if all(map(known, keys.values())):
            print(f"{name}: measured at this commit")
            continue
        try:
            model = getattr(networks, name)()
        except pytest.skip.Exception as lack:  # says what to install
            print(lack)
            continue
        x, batches = prepared(name, chosen), [{"x": image[None]} for image in prepared(name, calibration)]
        exact = outputs(prunus.compile(model, tune="off"), x)
        for precision, method in WAYS:
            if known(keys[precision, method]):
                continue
            if precision == "bf16":
                session = in_precision(model, precision, [])
            else:
                session = prunus.compile(
                    model, precision=precision, calibration=batches, calibration_method=method, tune="off"
                )
            low = outputs(session, x)
            error = float(np.sqrt(((low - exact) ** 2).sum() / (exact**2).sum()))
            yield {
                "key": keys[precision, method], "network": name, "precision": precision, "method": method,
                "images": len(x), "agreement": float((low.argmax(1) == exact.argmax(1)).mean()),
                "relative_error": error,
            }  # fmt: skip


def trained_networks(epochs: int, seeds: range, known: Known) -> Iterator[dict[str, Any]]:
    """Rows of test accuracy."""
    folder = fashion.folder()
    if folder is None:
        print("no Fashion-MNIST: apt install dataset-fashion-mnist, or set PRUNUS_DATA")
        return
    images = load_images("fashion", folder)
    raw = _read_fashion(folder)
    mean, deviation = float(raw[0].mean()), float(raw[0].std())
    x = ((raw[2][:, None].astype(np.float32) - mean) / deviation).astype(np.float32)
    for seed in seeds:
        names = {False: "fashion-mnist dense", True: "fashion-mnist bcr:8x64 90 %"}
        if all(known(f"{name} seed {seed}") for name in names.values()):
            print(f"fashion-mnist, seed {seed}: measured at this commit")
            continue
        network = make_network(seed)
        for pruned, name in names.items():
            if pruned:
                pruner = Pruner(network, recipe("bcr:8x64", 0, epochs), EXAMPLE, steps_per_epoch(images))
                train(network, images, Schedule(epochs, 2e-3), pruner, seed=seed)
            else:
                train(network, images, Schedule(epochs, 3e-3), seed=seed)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "net.onnx"
                export_onnx(network, path, EXAMPLE)
                batches = [{"x": images.train_x[i : i + 64]} for i in range(0, 256, 64)]
                exact = prunus.compile(path, tune="off")
                low = prunus.compile(path, precision="int8", calibration=batches, tune="off")
            accuracy = [float((outputs(s, x).argmax(1) == raw[3]).mean()) for s in (exact, low)]
            yield {
                "key": f"{name} seed {seed}", "network": name, "precision": "int8",
                "method": "mse", "seed": seed, "images": len(x), "accuracy_fp32": accuracy[0], "accuracy": accuracy[1],
                "points_lost": 100 * (accuracy[0] - accuracy[1]),
            }  # fmt: skip


def main() -> int:
    """Measure, print, append."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--probe", type=Path, help='JSON list of {"file": "usr/share/tuxpaint/stamps/..."}')
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3, help="trainings on Fashion-MNIST; 0 for none")
    parser.add_argument("--quick", action="store_true", help="few images and one epoch; writes no results")
    parser.add_argument("--again", action="store_true", help="also rows measured at this commit")
    arguments = parser.parse_args()
    probe = None if arguments.probe is None else [row["file"] for row in json.loads(arguments.probe.read_text())]
    quick, stamp, before = arguments.quick, store.stamp(), store.read(RESULTS)

    def known(key: str) -> bool:
        return not arguments.again and store.is_measured(before, key, stamp["commit"])

    epochs, seeds = (1, range(min(arguments.seeds, 1))) if quick else (arguments.epochs, range(arguments.seeds))
    for rows in (real_networks(probe, 2 if quick else None, known), trained_networks(epochs, seeds, known)):
        for row in rows:
            print(row, flush=True)
            if not quick:
                store.append(RESULTS, stamp | {"quick": False} | row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
