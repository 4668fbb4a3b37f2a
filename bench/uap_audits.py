"""What bench.uap measures of whole audits: their time, the classic attack beside ART's, and the fine-tune.

ART is the package adversarial-robustness-toolbox, of the extra `peers`; torchvision is not needed.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from bench.uap_sources import KEPT, PHOTOS, package, source, trained, victim
from prunus.audit.attacks.deepfool import DeepFoolUap
from prunus.audit.attacks.steps import Pgd
from prunus.audit.ball import Ball
from prunus.audit.harden import HardenPlan, harden
from prunus.audit.objective import Objective
from prunus.audit.problem import Problem
from prunus.audit.tasks import Source
from prunus.audit.victims import of_module
from prunus.training.pruner import Pruner

Row = dict[str, Any]
FAR = 1e9


def against_art() -> Row:
    """The DeepFool UAP on 60 images, 5 passes, by us and by ART, on two networks; judged on 600 others, cut to 0..1."""
    from art.attacks.evasion import UniversalPerturbation
    from art.estimators.classification import PyTorchClassifier

    rows: dict[str, list[tuple[float, float]]] = {"prunus": [], "art": []}
    for kind, eps in (("lenet", 0.25), ("cnn", 0.08)):
        network = trained(kind, source("mnist", "train"), 200)
        found, images = victim(kind, "mnist", "test"), source("mnist", "choose")
        order = torch.randperm(len(images.y), generator=torch.Generator().manual_seed(0))
        x, rest = images.x[order[:60]], order[60:660]
        judge_x, judge_y = images.x[rest], images.y[rest]
        right = found.classify(judge_x) == judge_y
        ball = Ball(eps)

        def success(delta: torch.Tensor, found: Any = found, x: Any = judge_x, y: Any = judge_y, right: Any = right,
                    ball: Ball = ball) -> float:  # fmt: skip
            fooled = right & (found.classify(ball.add(x[None], delta)[0]) != y)
            return float(fooled.sum() / right.sum())

        for seed in range(2):
            began = time.perf_counter()
            attack = DeepFoolUap(overshoot=1e-6, inner=20, seed=seed)
            path = attack(Problem(found, x[None], found.classify(x)[None], Ball(eps, "linf", -FAR, FAR)), 5)
            rows["prunus"].append((success(path[-1]), time.perf_counter() - began))
            classifier = PyTorchClassifier(network.eval(), nn.CrossEntropyLoss(), images.shape, images.classes)
            began = time.perf_counter()
            theirs = UniversalPerturbation(
                classifier, attacker="deepfool", attacker_params={"max_iter": 20, "epsilon": 1e-6, "verbose": False},
                delta=0.0, max_iter=5, eps=eps, norm=np.inf, verbose=False,
            )  # fmt: skip
            theirs.generate(x.numpy())
            spent = time.perf_counter() - began
            rows["art"].append((success(torch.from_numpy(theirs.noise.astype(np.float32))), spent))
    return {
        name: {"success": mean(a for a, _ in found), "seconds": mean(b for _, b in found), "each": found}
        for name, found in rows.items()
    }  # fmt: skip


def timed(arguments: list[str], folder: Path) -> Row:
    """Of the command line, all of it; what its JSON says of each model."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "prunus", "audit", *arguments, "--json", "audit.json", "-o", "audit.html", "-q"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    assert done.returncode in (0, 1), done.stderr
    shown = json.loads((folder / "audit.json").read_text())
    models = [
        {
            "name": m["name"], "accuracy": m["accuracy"]["share"], "success": m["at_eps"]["success"]["share"],
            "attack": m["at_eps"]["attack"], "made_on": m["at_eps"]["made_on"], "how": m["how"], "images": m["images"],
            "curve": [[p["eps"], p["success"]["share"]] for p in m["curve"]], "seconds": m["seconds"],
        }
        for m in shown["models"]
    ]  # fmt: skip
    return {"seconds": seconds, "command": " ".join(arguments), "models": models}


def audit_mnist() -> Row:
    """The demo's network: dense, pruned to 90 %, and that in int8 as an artefact."""
    import prunus
    from prunus.demo.data import load_images
    from prunus.demo.story import Plan, run_demo

    folder = KEPT / "demo"
    images = load_images("mnist")
    if not (folder / "int8.prunus").exists():
        if not (folder / "sparse.onnx").exists():
            run_demo(folder, Plan(time_s=0.2), "mnist", 1)
        feeds = [{"x": images.train_x[i : i + 64]} for i in range(0, 512, 64)]
        session = prunus.compile(folder / "sparse.onnx", precision="int8", calibration=feeds, threads=1)
        session.save(folder / "int8.prunus")
        np.savez(folder / "digits.npz", x=images.test_x, y=images.test_y)
    low, high = float(images.test_x.min()), float(images.test_x.max())
    eps = 0.1 * (high - low)
    arguments = ["dense.onnx", "sparse.onnx", "int8.prunus", "--data", "digits.npz", "--eps", f"{eps:.4f}"]
    return timed([*arguments, f"--range={low:.4f},{high:.4f}", "--gate", "0.3"], folder)


def audit_lite0() -> Row:
    """EfficientNet-lite0 on 100 crops of 10 photos, labelled as it answers: success is how often answers change."""
    from tests.real.networks import efficientnet_lite0

    folder = KEPT / "lite0"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "photos.npz").exists():
        (folder / "lite0.onnx").write_bytes(efficientnet_lite0())
        chance = np.random.default_rng(0)
        crops = []
        for name in PHOTOS:
            picture = Image.open(next((package("skimage") / "data").glob(f"{name}.*"))).convert("RGB")
            for _ in range(10):
                side = int(min(picture.size) * chance.uniform(0.7, 1.0))
                left, top = (int(chance.integers(0, size - side + 1)) for size in picture.size)
                crop = picture.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BICUBIC)
                crops.append((np.asarray(crop, np.float32).transpose(2, 0, 1) - 127) / 128)
        x = np.stack(crops)
        import onnxruntime

        session = onnxruntime.InferenceSession(str(folder / "lite0.onnx"))
        y = np.concatenate([session.run(None, {"x": part})[0].argmax(1) for part in np.split(x, 10)])
        np.savez(folder / "photos.npz", x=x, y=y.astype(np.int64))
    arguments = ["lite0.onnx", "--data", "photos.npz", "--eps", f"{10 / 128:.4f}", "--range=-0.9922,1"]
    return timed([*arguments, "--fit", "20"], folder)


def hardened() -> Row:
    """A digit network pruned to 80 %, fine-tuned as long plainly and against universal perturbations."""
    images = source("mnist", "train")
    ball = Ball(0.15)
    found: dict[str, tuple[float, float]] = {}
    for way in ("plain", "hardened"):
        network = trained("lenet", images, 200)
        ends = [{"match": "0", "skip": True}, {"match": "9", "skip": True}]
        rest = {"match": "re:.*", "scheme": "unstructured", "sparsity": 0.8}
        rules = {"version": 1, "method": "one-shot", "layers": [*ends, rest]}
        pruner = Pruner(network, rules, steps_per_epoch=1)
        pruner.finalize()
        harden(network, images, HardenPlan(ball, epochs=3, clean=1.0), pruner)
        if way == "hardened":
            harden(network, images, HardenPlan(ball, epochs=3), pruner)
        else:
            harden(network, images, HardenPlan(ball, epochs=3, clean=1.0), pruner)
        found[way] = _weakness(network, ball)
    (before, accuracy_before), (after, accuracy_after) = found["plain"], found["hardened"]
    return {
        "before": before, "after": after, "accuracy_before": accuracy_before, "accuracy_after": accuracy_after,
        "eps": ball.eps, "sparsity": 0.8,
    }  # fmt: skip


def _weakness(network: nn.Module, ball: Ball) -> tuple[float, float]:
    """Success of PGD with 100 images on others, and accuracy."""
    found, images = of_module(network, (1, 28, 28)), source("mnist", "choose")
    some, rest = Source("", images.x[:100], images.y[:100]), Source("", images.x[100:], images.y[100:])
    right = found.classify(rest.x) == rest.y
    rates = []
    for objective in (Objective(), Objective("cross-entropy")):
        delta = Pgd(0.0625)(Problem(found, some.x[None], some.y[None], ball, objective), 40)[-1]
        fooled = right & (found.classify(ball.add(rest.x[None], delta)[0]) != rest.y)
        rates.append(float(fooled.sum() / right.sum()))
    return max(rates), float(right.float().mean())
