"""Whose network: what examples of each kind are worth, on Fashion-MNIST networks and on EfficientNet-lite0.

    python -m bench.fingerprint [--only TEXT ...] [--list]     # appends to bench/results/fingerprint.jsonl

Trains the family of `bench.family` where out/fingerprint lacks it, measures the rows that are missing, then draws
docs/fingerprint.svg and prints the table; `python -m bench.report` writes it into docs/fingerprint.md. The constants of
`fingerprint.method.Method` were chosen on the owners `family.TRIALS`, which aren't reported. Exit
status: 1 where the table is short.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from bench import family, store
from prunus.fingerprint.baselines import deepjudge
from prunus.fingerprint.baselines.ipguard import ipguard
from prunus.fingerprint.detection import detected
from prunus.fingerprint.domain import Domain, Levels
from prunus.fingerprint.generate import generate
from prunus.fingerprint.method import Method
from prunus.fingerprint.owner import Owner, owner_of_file
from prunus.fingerprint.scores import scores
from prunus.fingerprint.secret import noise_seed, order_of, starts_of, targets_of
from prunus.fingerprint.statistics import null_rate, p_binomial, p_rank, roc, threshold, upper_rate
from prunus.fingerprint.suspects import Suspect, suspect_of_file
from prunus.fingerprint.transforms import TRANSFORMS

RESULTS = store.RESULTS / "fingerprint.jsonl"
PLOT = store.ROOT / "docs" / "fingerprint.svg"
N, ALPHA, DRAWS = 100, 1e-3, 3  # examples; of a false claim; fingerprints per owner and kind
OWNERS = ("owner-0", "owner-1", "owner-2")
RC, IPGUARD = "rc", "ipguard"
LEAST_UNIQUE, LEAST_RECOGNISED = 4.0, 0.95  # of the table
MOST_S = 60.0


@dataclass(frozen=True)
class Way:
    """How examples are made; from: noise or images. k: of IPGuard."""

    name: str
    method: Method
    start: str = "noise"
    k: float | None = None


WAYS = (
    Way("ltrc", Method("ltrc")),
    Way("c", Method("c")),
    Way("rc", Method("rc")),
    Way("ipguard", Method("c"), "images", 5.0),
    Way("ipguard, k 10", Method("c"), "images", 10.0),
    Way("pgd", Method("c", eps=0.1), "images"),
    Way("ltrc, uniform noise", Method("ltrc", draw="uniform", noise=0.5)),
    Way("ltrc, from images", Method("ltrc"), "images"),
    Way("c, eps 0.15", Method("c", eps=0.15)),
    Way("rc, eps 0.15", Method("rc", eps=0.15)),
    Way("ltrc, eps 0.15", Method("ltrc", eps=0.15)),
)


@dataclass(frozen=True)
class Made:
    """Examples, what they are matched by, how many the owner's network matches, and how long they took."""

    examples: Levels
    labels: np.ndarray[Any, np.dtype[np.int64]]
    own: int
    seconds: float


def made(way: Way, owner: Owner, domain: Domain, images: Levels, draw: int) -> Made:
    """A fingerprint's examples; draw: which secret."""
    secret = draw.to_bytes(32, "big")
    chosen = images[order_of(secret, N, len(images))] if way.start == "images" else None
    starts = starts_of(secret, N, domain.shape) if chosen is None else chosen
    begin = time.perf_counter()
    first = owner.labels(domain.values(starts))
    if way.k is None:
        labels = np.array(targets_of(secret, first, owner.classes), np.int64)
        examples = generate(owner, domain, way.method, starts, labels, noise_seed(secret))
    else:
        examples, labels = ipguard(owner, domain, starts, first, draw, k=way.k)
    seconds = time.perf_counter() - begin
    return Made(examples, labels, int((owner.labels(domain.values(examples)) == labels).sum()), seconds)


def rates(found: Made, domain: Domain, suspects: dict[str, Suspect], classes: int) -> dict[str, float]:
    """Match rate of each suspect."""
    x = domain.values(found.examples)
    return {name: float((suspect.labels(x, classes) == found.labels).mean()) for name, suspect in suspects.items()}


def verdicts(null: dict[str, float], others: dict[str, float], classes: int) -> dict[str, Any]:
    """p of each suspect against the null models, and how many matches are needed."""
    counts = [round(rate * N) for rate in null.values()]
    rate = null_rate(counts, N, classes)
    return {
        "rate": rate, "needed": threshold(N, rate, ALPHA),
        "p": {name: p_binomial(round(a * N), N, rate) for name, a in others.items()},
        "p_rank": {name: p_rank(round(a * N), counts) for name, a in others.items()},
    }  # fmt: skip


@cache
def pixels() -> tuple[Levels, Domain]:
    """The images for choosing as levels, and what levels mean to the networks."""
    d = family.data()
    low, high = float(d.x.min()), float(d.x.max())
    domain = Domain((1, 28, 28), (low,), (high,))
    return domain.levels(d.choose_x.numpy()), domain


@cache
def suspects_of(owner: str) -> dict[str, dict[str, Suspect]]:
    """By role: descendants of the owner, null models, and independent ones: other owners are among them."""
    found: dict[str, dict[str, Suspect]] = {"descendant": {}, "null": {}, "independent": {}}
    for member in family.members():
        role = member.role
        if role == "owner" and member.name in OWNERS and member.name != owner:
            role = "independent"
        if role in found and member.of in ("", owner):
            if not member.path.exists():
                print(member.name, flush=True)
                member.make()
            found[role][member.name] = suspect_of_file(member.path, threads=1)
    return found


@cache
def owner_of(name: str) -> Owner:
    """The owner's network, from inside."""
    member = next(member for member in family.members() if member.name == name)
    if not member.path.exists():
        member.make()
    return owner_of_file(member.path)


def measure_kind(owner: str, way: Way, draw: int) -> store.Row:
    """Match rates of all models, and what follows from them."""
    images, domain = pixels()
    found = made(way, owner_of(owner), domain, images, draw)
    everyone = suspects_of(owner)
    by_role = {role: rates(found, domain, suspects, 10) for role, suspects in everyone.items()}
    said = verdicts(by_role["null"], {**by_role["descendant"], **by_role["independent"]}, 10)
    counted = [member.name for member in family.members() if member.of == owner and member.counted]
    claimed = [name for name, p in said["p"].items() if p <= ALPHA]
    return {
        "owner": owner, "kind": way.name, "draw": draw, "method": asdict(way.method), "own": found.own,
        "seconds": round(found.seconds, 1), "rates": by_role, **said,
        **asdict(scores(list(by_role["descendant"].values()), list(by_role["independent"].values()))),
        "recognised": float(np.mean([name in claimed for name in counted])), "counted": len(counted),
        "recognised_of_all": float(np.mean([name in claimed for name in by_role["descendant"]])),
        "false_positives": [name for name in claimed if name in by_role["independent"]],
    }  # fmt: skip


def measure_deepjudge(owner: str) -> store.Row:
    """DeepJudge's distances of all models: area under the ROC curve, and who is nearer than every null model."""
    network, d, everyone = owner_of(owner), family.data(), suspects_of(owner)
    x, y = d.choose_x.numpy(), d.choose_y.numpy()
    tests = deepjudge.tests_of(network, x, y, float(d.x.min()), float(d.x.max()), N)
    row: store.Row = {"owner": owner, "kind": "deepjudge", "right": tests.right}
    measures: dict[str, Callable[[Suspect], float]] = {
        "robustness distance": lambda s: deepjudge.robustness_distance(tests, s, 10),
        "divergence": lambda s: deepjudge.divergence(tests, s),
    }
    for name, measure in measures.items():
        found = {role: {n: measure(s) for n, s in suspects.items()} for role, suspects in everyone.items()}
        bound = min(found["null"].values())
        near = [-value for value in found["descendant"].values()]
        far = [-value for value in found["independent"].values()]
        row[name] = {
            "distances": found, "area": scores(near, far).area,
            "recognised_of_all": float(np.mean([-value < bound for value in near])),
            "false_positives": [n for n, value in found["independent"].items() if value < bound],
        }  # fmt: skip
    return row


def measure_attacks(owner: str, way: Way) -> store.Row:
    """Pictures changed before they are answered, by the owner's network and a descendant; and queries detected."""
    images, domain = pixels()
    found, everyone = made(way, owner_of(owner), domain, images, 0), suspects_of(owner)
    suspects = {"owner": suspect_of_file(family.KEPT / f"{owner}.onnx", threads=1)}
    suspects["bcr-80"] = everyone["descendant"][f"{owner}-bcr-80"]
    null = rates(found, domain, everyone["null"], 10)
    needed = verdicts(null, {}, 10)["needed"]
    changed = {
        name: rates(replace(found, examples=change(found.examples)), domain, suspects, 10)
        for name, change in TRANSFORMS.items()
    }
    share = detected(domain.values(found.examples), domain.values(images[:1000]))
    return {"owner": owner, "kind": way.name, "needed": needed, "transforms": changed, "detected": share}


def tasks() -> dict[str, Callable[[], store.Row]]:
    """Every row by its key, the most wanted first."""
    found: dict[str, Callable[[], store.Row]] = {}
    for owner in OWNERS:
        for way in WAYS:
            for draw in range(DRAWS):
                found[f"fashion {owner} {way.name} draw {draw}"] = lambda o=owner, w=way, d=draw: measure_kind(o, w, d)
        found[f"fashion {owner} deepjudge"] = lambda o=owner: measure_deepjudge(o)
        for way in WAYS[:3]:
            found[f"fashion {owner} {way.name} attacks"] = lambda o=owner, w=way: measure_attacks(o, w)
    from bench import fingerprint_imagenet as imagenet

    for name in imagenet.KINDS:
        found[f"lite0 {name}"] = lambda n=name: imagenet.measure(n)
    return found


def of_kind(rows: Sequence[store.Row], kind: str) -> list[store.Row]:
    """Fashion-MNIST rows of a kind, one per owner and draw."""
    return [row for row in rows if row["key"].startswith("fashion") and row.get("kind") == kind and "draw" in row]


def ratio_bound(a: Sequence[store.Row], b: Sequence[store.Row], seed: int = 0) -> tuple[float, float, float]:
    """Ratio of mean Uniqueness Scores of two kinds, with bounds of 95 % by resampling owners, then their draws."""
    rng = np.random.default_rng(seed)
    owners = sorted({row["owner"] for row in a} & {row["owner"] for row in b})
    values = {o: [np.array([r["uniqueness"] for r in rows if r["owner"] == o]) for rows in (a, b)] for o in owners}
    found = []
    for _ in range(2000):
        means = [[rng.choice(v, len(v)).mean() for v in values[o]] for o in rng.choice(owners, len(owners))]
        x, y = np.mean(means, axis=0)
        found.append(x / max(y, 1e-9))
    means_a, means_b = (np.mean([row["uniqueness"] for row in rows]) for rows in (a, b))
    return float(means_a / max(means_b, 1e-9)), *(float(q) for q in np.quantile(found, (0.025, 0.975)))


@dataclass(frozen=True)
class Line:
    """A figure of the issue's table."""

    what: str
    found: str
    asked: str
    met: bool | None


def table(all_rows: Sequence[store.Row]) -> list[Line]:
    """What is measured of what was asked."""
    rows = list(store.latest(all_rows).values())
    ltrc, lines = of_kind(rows, "ltrc"), list[Line]()
    if not ltrc:
        return []
    for name in ("ipguard", "ipguard, k 10"):
        if other := of_kind(rows, name):
            ratio, low, high = ratio_bound(ltrc, other)
            mine, its = (np.mean([row["uniqueness"] for row in part]) for part in (ltrc, other))
            text = f"{ratio:.2f} ({low:.2f} to {high:.2f}): {mine:.3f} over {its:.3f}"
            lines.append(Line(f"Uniqueness Score, LTRC over {name}", text, "at least 4", low >= LEAST_UNIQUE))
    wrong = sorted({name for row in ltrc for name in row["false_positives"]})
    k = len({name for row in ltrc for name in row["rates"]["independent"]})
    text = f"{len(wrong)} of {k} models, {len(ltrc)} fingerprints (rate below {upper_rate(len(wrong), k):.1%})"
    lines.append(Line("false positives of LTRC at p 0.001", text, "0", not wrong))
    share = float(np.mean([row["recognised"] for row in ltrc]))
    n_counted = sum(row["counted"] for row in ltrc)
    lines.append(
        Line(
            "BCR <= 90 %, int8, fine-tuned recognised", f"{share:.1%} of {n_counted}", "95 %", share >= LEAST_RECOGNISED
        )
    )
    lines.append(
        Line("all descendants recognised", f"{np.mean([r['recognised_of_all'] for r in ltrc]):.1%}", "-", None)
    )
    for a, b, field, sign in (
        ("rc", "c", "robustness", 1), ("rc, eps 0.15", "c, eps 0.15", "robustness", 1),
        ("ltrc", "rc", "transferability", -1), ("ltrc, eps 0.15", "rc, eps 0.15", "transferability", -1),
    ):  # fmt: skip
        pairs = {(row["owner"], row["draw"]): row[field] for row in of_kind(rows, b)}
        apart = [row[field] - pairs[key] for row in of_kind(rows, a) if (key := (row["owner"], row["draw"])) in pairs]
        if apart:
            text = f"{np.mean(apart):+.3f} ({min(apart):+.3f} to {max(apart):+.3f}, {len(apart)} fingerprints)"
            met = sign * float(np.mean(apart)) > 0
            lines.append(Line(f"{field}, {a} minus {b}", text, "above 0" if sign > 0 else "below 0", met))
    lines.append(Line("queries to decide", str(N), "at most 100", N <= 100))
    slowest = max(row["seconds"] for row in ltrc)
    lines.append(Line("seconds to make them, Fashion-MNIST", f"{slowest:.0f}", "at most 60", slowest <= MOST_S))
    for row in rows:
        if row["key"] == "lite0 ltrc":
            minutes = row["cpu_seconds"] / 60
            lines.append(
                Line(
                    "minutes of one core to make them, EfficientNet-lite0",
                    f"{minutes:.1f}",
                    "at most 15",
                    minutes <= 15,
                )
            )
    return lines


def draw_roc(rows: Sequence[store.Row], plot: Path = PLOT) -> None:
    """ROC of each kind over all owners and draws, false positives on a scale that shows few of them."""
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams["svg.hashsalt"] = "prunus"
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 4.5), layout="constrained")
    for kind in ("ltrc", "rc", "c", "ipguard", "ipguard, k 10", "pgd"):
        found = of_kind(rows, kind)
        if not found:
            continue
        related, unrelated = (
            [a for row in found for a in row["rates"][role].values()] for role in ("descendant", "independent")
        )
        false, true = roc(related, unrelated)
        area = np.mean([row["area"] for row in found])
        axis.step([100 * v for v in false], [100 * v for v in true], where="post", label=f"{kind}: area {area:.3f}")
    axis.set_xscale("symlog", linthresh=1)
    axis.set_xlim(0, 100)
    axis.set_xlabel("independent models that match as often, %")
    axis.set_ylabel("descendants that match as often, %")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.legend(frameon=False, fontsize=8, loc="lower right")
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(plot, metadata={"Date": None} if plot.suffix == ".svg" else None)
    plt.close(figure)


def main() -> int:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="rows whose name holds one of these")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--list", action="store_true", help="print the names of the rows")
    options = parser.parse_args()
    chosen = {key: task for key, task in tasks().items() if any(text in key for text in options.only)}
    if options.list:
        print("\n".join(chosen))
        return 0
    torch.set_num_threads(options.threads)
    family.KEPT.mkdir(parents=True, exist_ok=True)
    for key, task in chosen.items():
        if key in store.latest(store.read(RESULTS)):
            continue
        row = {**store.stamp(), "key": key, "threads": options.threads, **task()}
        with FileLock(f"{RESULTS}.lock"):
            store.append(RESULTS, row)
        brief = ("own", "robustness", "transferability", "uniqueness", "least", "most", "recognised", "seconds")
        shown = {name: round(row[name], 3) for name in brief if name in row}
        print(key, json.dumps(shown), row.get("false_positives", ""), flush=True)
    rows = list(store.latest(store.read(RESULTS)).values())
    if rows:
        draw_roc(rows)
    lines = table(rows)
    for line in lines:
        verdict = "" if line.met is None else "pass" if line.met else "short"
        print(f"{line.what:55} {line.found:50} {line.asked:12} {verdict}")
    return int(any(line.met is False for line in lines))


if __name__ == "__main__":
    sys.exit(main())
