"""How well real networks agree with their dense selves when half of their weights go, without a training set.

    python -m bench.reconstruct --probe probe.json      # appends to bench/results/reconstruct.jsonl

EfficientNet-lite0 and SqueezeNet 1.1 with ImageNet weights; 50 % zeros in all ungrouped convolutions but the first, and
in no fully connected layer; by magnitude, by layer-wise reconstruction, and with distillation after it. `--probe` is a
JSON list of {"file": path, "imagenet": [classes]} on Debian's tuxpaint-stamps-default (under /usr/share, or
PRUNUS_DATA). Fitted on stamps that aren't in it, on its own whose sha1 of the path begins with 0 to 7, without labels,
and on photos of scikit-image, each also mirrored at another size; reported on the others ("held out") and on all.
What is there already with the same settings is skipped.
"""

import argparse
import hashlib
import importlib.util
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.real import networks

from bench import store
from bench.accuracy import outputs, picture, stamps
from prunus.compiler.compile import compile as compile_model
from prunus.pruning.one_shot import prune_onnx
from prunus.training.reconstruct import Options, reconstruct_onnx

RESULTS = store.RESULTS / "reconstruct.jsonl"
SCHEMES = ("bcr:8x64", "punched:8x4", "unstructured")
NETWORKS = {"efficientnet_lite0": 224, "squeezenet": 227}
PHOTOS = (
    "astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "motorcycle_right.png",
    "color.png", "clock_motion.png", "hubble_deep_field.jpg", "camera.png", "grass.png", "gravel.png", "brick.png",
)  # fmt: skip
CROPS = 4  # of each photo
SPARSITY = 0.5
BATCH = 8
Pixels = NDArray[np.float32]


def scaled(name: str, pictures: Pixels) -> Pixels:
    """float32[n, 3, h, w] as the network takes them, of RGB 0..255."""
    if name == "efficientnet_lite0":
        pictures = (pictures - 127) / 128
    else:
        pictures = pictures[..., ::-1] - np.float32([103.939, 116.779, 123.68])
    return np.ascontiguousarray(pictures.transpose(0, 3, 1, 2), np.float32)


def photos(size: int, rng: np.random.Generator) -> list[Pixels]:
    """Square crops of photos, at random."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        return []
    made = []
    for name in PHOTOS:
        path = Path(spec.submodule_search_locations[0]) / "data" / name
        if not path.exists():
            continue
        image = Image.open(path).convert("RGB")
        for _ in range(CROPS):
            side = int(min(image.size) * rng.uniform(0.4, 1))
            left, top = (int(rng.integers(0, extent - side + 1)) for extent in image.size)
            crop = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BICUBIC)
            made.append(np.asarray(crop, np.float32))
    return made


def mirrored(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Mirrored, and on a larger or smaller white square: what a stamp could also look like."""
    size, side = len(pixels), int(len(pixels) * rng.uniform(0.75, 1.0))
    small = Image.fromarray(pixels[:, ::-1].clip(0, 255).astype(np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    canvas = Image.new("RGB", (size, size), (255, 255, 255))
    canvas.paste(small, tuple(int(rng.integers(0, size - side + 1)) for _ in range(2)))
    return np.asarray(canvas, np.float32)


def fitted(file: str) -> bool:
    """Is a labelled stamp one of those that may be fitted on?"""
    return hashlib.sha1(file.encode()).hexdigest()[0] in "01234567"


def file_of(path: Path) -> str:
    """The path as `--probe` has it."""
    text = str(path)
    return text[text.index("usr/share/") :]


def scores(model: onnx.ModelProto, x: Pixels, dense: NDArray[Any], labels: list[set[int]], held: NDArray[Any]) -> Any:
    """Top-1 agreement with the dense network and top-1 accuracy, on all and on what wasn't fitted on."""
    best = outputs(compile_model(model, tune="off"), x).argmax(1)
    agree = best == dense
    right = np.array([int(k) in known for k, known in zip(best, labels, strict=True)])
    return {
        "agreement": float(agree.mean()), "agreement_held_out": float(agree[held].mean()),
        "accuracy": float(right.mean()), "accuracy_held_out": float(right[held].mean()),
        "images": len(x), "images_held_out": int(held.sum()),
    }  # fmt: skip


def measure(
    name: str, schemes: list[str], probe: list[dict[str, Any]], settings: dict[str, Any], known: Any, add: Any
) -> None:
    """Rows of one network."""
    model = onnx.load_from_string(getattr(networks, name)())
    size, rng = NETWORKS[name], np.random.default_rng(0)
    labels = {row["file"]: set(row["imagenet"]) for row in probe}
    found = stamps()
    asked = [path for path in found if file_of(path) in labels]
    fit = [path for path in found if file_of(path) not in labels or fitted(file_of(path))]
    fit = [fit[i] for i in rng.permutation(len(fit))[: settings["stamps"]]]
    pictures = [picture(path, size) for path in fit] + photos(size, rng)
    pictures += [mirrored(pixels, rng) for pixels in pictures]
    x_fit = scaled(name, np.stack([pictures[i] for i in rng.permutation(len(pictures))]))
    x, of = scaled(name, np.stack([picture(path, size) for path in asked])), [labels[file_of(path)] for path in asked]
    held = np.array([not fitted(file_of(path)) for path in asked])
    exact = outputs(compile_model(model, tune="off"), x).argmax(1)
    layers = [n.name or n.output[0] for n in model.graph.node if n.op_type == "Conv"]
    ignore = [layers[0], *(n.name or n.output[0] for n in model.graph.node if n.op_type in ("Gemm", "MatMul"))]
    feeds = [{"x": x_fit[i : i + BATCH]} for i in range(0, len(x_fit), BATCH)]
    if not known(f"{name} dense"):
        add({"key": f"{name} dense", "network": name, "method": "dense", **scores(model, x, exact, of, held)})
    for scheme in schemes:
        base = {"network": name, "scheme": scheme, "sparsity": SPARSITY}
        keys = {way: f"{name} {scheme} {way}" for way in ("magnitude", "reconstruction", "distillation")}
        if not settings["epochs"]:
            del keys["distillation"]
        if all(map(known, keys.values())):
            print(f"{name} {scheme}: measured already")
            continue
        plain = prune_onnx(model, scheme, SPARSITY, ignore)
        add({"key": keys["magnitude"], **base, "method": "magnitude", **scores(plain, x, exact, of, held)})
        start = time.perf_counter()

        def row(way: str, made: Any, start: float = start, base: Any = base, keys: Any = keys) -> None:
            errors = [(e.magnitude, e.reconstructed) for e in made.errors]
            before, after = np.mean(errors, 0).tolist()
            add({
                "key": keys[way], **base, "method": way, "fitted_on": len(x_fit), **settings,
                "achieved": made.result.sparsity, "layer_error_magnitude": before, "layer_error": after,
                "spent_s": time.perf_counter() - start, **scores(made.result.model, x, exact, of, held),
            })  # fmt: skip

        made = reconstruct_onnx(
            model, scheme, SPARSITY, ignore, feeds, Options(distil=settings["epochs"], rate=settings["rate"]),
            report=lambda line, start=start: print(f"{time.perf_counter() - start:6.0f} s  {line}", flush=True),
            before_distillation=lambda made, row=row: row("reconstruction", made),
        )  # fmt: skip
        row("distillation" if settings["epochs"] else "reconstruction", made)


def _plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without what can't be compared as items."""
    return [{key: value for key, value in row.items() if not isinstance(value, dict)} for row in rows]


def main() -> int:
    """Measure, print, append."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--probe", type=Path, required=True, help='JSON list of {"file": ..., "imagenet": [...]}')
    parser.add_argument("--network", choices=NETWORKS, action="append")
    parser.add_argument("--scheme", action="append", help=f"default: {', '.join(SCHEMES)}")
    parser.add_argument("--epochs", type=int, default=6, help="of distillation")
    parser.add_argument("--rate", type=float, default=Options().rate)
    parser.add_argument("--stamps", type=int, default=1000, help="at most so many to fit on")
    parser.add_argument("--again", action="store_true", help="also rows that are there already")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    probe, stamp, before = json.loads(arguments.probe.read_text()), store.stamp(), store.read(arguments.out)
    if not stamps():
        print("no stamps: apt install tuxpaint-stamps-default, or set PRUNUS_DATA")
        return 1
    settings = {"epochs": arguments.epochs, "rate": arguments.rate, "stamps": arguments.stamps}

    def known(key: str) -> bool:
        fitted_so = key.endswith(("reconstruction", "distillation"))
        wanted = {"key": key, **(settings if fitted_so else {})}
        return not arguments.again and any(wanted.items() <= row.items() for row in _plain(before))

    def add(row: dict[str, Any]) -> None:
        print(row, flush=True)
        store.append(arguments.out, stamp | {"quick": False} | row)

    for name in arguments.network or NETWORKS:
        try:
            measure(name, arguments.scheme or list(SCHEMES), probe, settings, known, add)
        except pytest.skip.Exception as lack:  # says what to install
            print(lack)
    return 0


if __name__ == "__main__":
    sys.exit(main())
