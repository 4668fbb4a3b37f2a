"""EfficientNet-lite0 with ImageNet weights as the owner: pruned and quantised descendants, others as independents.

Descendants are made without training data, as far as pruning then goes (see docs/reconstruction.md). Networks of random
weights stand in where there are no further trained ones: what they answer is chance.
"""

import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from tests.real import networks

import prunus
from bench import family, store
from bench.accuracy import prepared, stamps
from prunus.fingerprint.baselines.ipguard import ipguard
from prunus.fingerprint.domain import Domain
from prunus.fingerprint.generate import generate
from prunus.fingerprint.method import Method
from prunus.fingerprint.owner import Owner, owner_of_file
from prunus.fingerprint.secret import noise_seed, starts_of, targets_of
from prunus.fingerprint.statistics import null_rate, p_binomial, threshold
from prunus.fingerprint.suspects import Suspect, suspect_of_file

N, PART, ALPHA = 100, 10, 1e-3
DOMAIN = Domain((3, 224, 224), (-127 / 128,), (1.0,))
KINDS = {
    "ltrc": Method("ltrc", eps=0.3, steps=30, draws=1, noise=0.2, cutoff=0.25),
    "c": Method("c", eps=0.3, steps=20),
    "ipguard": None,
}
CHANGES: dict[str, tuple[str, float]] = {
    "unstructured-10": ("unstructured", 0.1), "unstructured-20": ("unstructured", 0.2),
    "unstructured-30": ("unstructured", 0.3), "unstructured-40": ("unstructured", 0.4), "bcr-10": ("bcr:8x64", 0.1),
    "bcr-20": ("bcr:8x64", 0.2),
}  # fmt: skip


def owner_path() -> Path:
    """The owner's file, written where it isn't there."""
    path = family.KEPT / "lite0.onnx"
    if not path.exists():
        path.write_bytes(networks.efficientnet_lite0())
    return path


def descendants() -> dict[str, Path]:
    """By name, made where they aren't there."""
    found = {}
    model = onnx.load(owner_path())
    first = next(node.name for node in model.graph.node if node.op_type == "Conv")
    for name, (scheme, sparsity) in CHANGES.items():
        found[name] = path = family.KEPT / f"lite0-{name}.onnx"
        if not path.exists():
            pruned = prunus.prune_onnx(model, scheme=scheme, sparsity=sparsity, ignore=[first])
            path.write_bytes(pruned.SerializeToString())
    feeds = [{"x": batch} for batch in np.split(pictures(32), 8)]
    for precision in ("int8", "bf16"):
        found[precision] = path = family.KEPT / f"lite0-{precision}.prunus"
        if not path.exists():
            given = feeds if precision == "int8" else None
            prunus.compile(owner_path(), precision=precision, calibration=given, threads=1, tune="off").save(path)
    return found


@cache
def pictures(n: int) -> NDArray[np.float32]:
    """float32[n, 3, 224, 224]: stamps where they are installed, else photos, some of them again."""
    found = stamps()
    if found:
        return prepared("efficientnet_lite0", found[:: len(found) // n][:n])
    photos = (networks.photos(224) - 127) / 128
    return np.ascontiguousarray(np.resize(photos.transpose(0, 3, 1, 2), (n, 3, 224, 224)), np.float32)


def independents() -> dict[str, Suspect]:
    """SqueezeNet, fed what it takes of the same pictures; the light networks of ImageNet's shape with random weights;
    and an EfficientNet-lite0 with all weights drawn anew."""
    path = family.KEPT / "squeezenet.onnx"
    path.write_bytes(networks.squeezenet())
    inner = suspect_of_file(path, threads=1)

    def squeezenet(x: NDArray[np.float32]) -> NDArray[Any]:
        pixels = np.pad(x * 128 + 127, ((0, 0), (0, 0), (1, 2), (1, 2)), mode="edge")[:, ::-1]
        return inner.answer((pixels - np.float32([103.939, 116.779, 123.68])[:, None, None]).astype(np.float32))

    found = {"squeezenet": Suspect("squeezenet", squeezenet, DOMAIN.shape, 1000)}
    for name in ("resnet50", "inception_v2"):
        path = family.KEPT / f"light-{name}.onnx"
        if not path.exists():
            onnx.save(networks.light(name), path)
        found[f"{name}, random weights"] = suspect_of_file(path, threads=1)
    path, rng = family.KEPT / "lite0-random.onnx", np.random.default_rng(0)
    model = onnx.load(owner_path())
    for tensor in model.graph.initializer:
        if len(tensor.dims) > 1:
            a = onnx.numpy_helper.to_array(tensor)
            shuffled = rng.permutation(a.ravel()).reshape(a.shape)
            tensor.CopyFrom(onnx.numpy_helper.from_array(shuffled, tensor.name))
    onnx.save(model, path)
    found["efficientnet-lite0, weights shuffled"] = suspect_of_file(path, threads=1)
    return found


def _made(kind: str, owner: Owner) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    secret, method = bytes(32), KINDS[kind]
    starts = starts_of(secret, N, DOMAIN.shape) if method else DOMAIN.levels(pictures(N))
    first = owner.labels(DOMAIN.values(starts), PART)
    targets = np.array(targets_of(secret, first, owner.classes), np.int64)
    examples, labels = [], []
    for at in range(0, N, PART):
        part = slice(at, at + PART)
        if method is None:
            made, said = ipguard(owner, DOMAIN, starts[part], first[part], at, steps=30, k=10.0)
        else:
            made = generate(owner, DOMAIN, method, starts[part], targets[part], noise_seed(secret) + at)
            said = targets[part]
        examples.append(made)
        labels.append(said)
        print(f"lite0 {kind}: {at + PART} of {N}", flush=True)
    return np.concatenate(examples), np.concatenate(labels)


def measure(kind: str) -> store.Row:
    """Match rates of all models; p against the rate of the worst independent network, left out one at a time for it."""
    owner = owner_of_file(owner_path())
    begin, begun = time.perf_counter(), time.process_time()
    examples, labels = _made(kind, owner)
    seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - begun
    x, found = DOMAIN.values(examples), dict[str, dict[str, float]]()
    suspects = {name: suspect_of_file(path, threads=1) for name, path in descendants().items()}
    for role, group in (("descendant", suspects), ("independent", independents())):
        found[role] = {}
        for name, suspect in group.items():
            said = np.concatenate([suspect.labels(part, owner.classes) for part in np.split(x, N // PART)])
            found[role][name] = float((said == labels).mean())
    counts = {name: round(rate * N) for name, rate in found["independent"].items()}
    rate = null_rate(list(counts.values()), N, owner.classes)
    p = {name: p_binomial(round(a * N), N, rate) for name, a in found["descendant"].items()}
    for name, count in counts.items():
        others = [c for other, c in counts.items() if other != name]
        p[name] = p_binomial(count, N, null_rate(others, N, owner.classes))
    own = np.concatenate([owner.labels(part) for part in np.split(x, N // PART)])
    related, unrelated = list(found["descendant"].values()), list(found["independent"].values())
    return {
        "kind": kind, "method": None if KINDS[kind] is None else KINDS[kind].__dict__,
        "own": int((own == labels).sum()), "seconds": round(seconds, 1), "cpu_seconds": round(cpu_seconds, 1),
        "rates": found, "rate": rate,
        "needed": threshold(N, rate, ALPHA), "p": p, "robustness": float(np.mean(related)),
        "transferability": float(np.mean(unrelated)), "uniqueness": float(np.mean(related) - np.mean(unrelated)),
        "least": min(related), "most": max(unrelated),
        "recognised_of_all": float(np.mean([p[name] <= ALPHA for name in found["descendant"]])),
        "false_positives": [name for name in counts if p[name] <= ALPHA],
    }  # fmt: skip
