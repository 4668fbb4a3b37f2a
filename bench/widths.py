"""Widths found by Pruning-as-Search against widths by rule, on Fashion-MNIST and on two tasks composed of it.

    python -m bench.widths [--only TEXT ...] [--share 1/2] [--list]     # appends to bench/results/widths.jsonl

A row that was measured is skipped, so that hours can be spread over runs; delete its line to measure it again. Dense
networks are trained first, once per network and seed, and kept in out/widths beside the smaller ones (ONNX files).
Every method trains as many epochs on every second image: a rule without a search fine-tunes that much longer. Networks
have the widths that the field gives them, and no more of them than the images need: where half of a network is as good
as the whole, widths decide nothing (they were chosen, as the epochs were, on the images for choosing). A network with a
budget of milliseconds gets those that the one with the budget of multiply-adds needs. `quality` is the test accuracy,
the mean intersection over union (segmentation), or PSNR in dB (translation). With `--share i/n` n runs divide the rows.
`--quick N` is a small trial, on the images for choosing, that writes no results.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor, nn
from torch.nn import functional

from bench import fashion, scenes, store, width_goals
from bench.scenes import Pairs
from prunus.search.branches import branched, merge
from prunus.search.choose import bn_gamma, by_scores, magnitude, uniform
from prunus.search.costs import Cost, Latency, macs
from prunus.search.families import pas_light, pas_vgg
from prunus.search.meet import CALIBRATED, calibrate, latency_of, meet, share_of, steps_down
from prunus.search.pas import WidthSearch
from prunus.search.times import compiled
from prunus.training.export import export_onnx
from prunus.training.shrink.follow import find_groups
from prunus.training.shrink.widths import lanes

RESULTS = store.RESULTS / "widths.jsonl"
KEPT = store.ROOT / "out" / "widths"
SEEDS = (0, 1, 2)
RATE, FINE_RATE, SEARCH_RATE = 0.1, 0.05, 0.05  # the highest ones; the search's is constant
WEIGHT_DECAY = 5e-4
BATCH = 128


@dataclass(frozen=True)
class Epochs:
    """How long."""

    dense: int = 12
    search: int = 1
    finetune: int = 11


SHORT = Epochs(6, 2, 4)  # of the larger tasks


@dataclass(frozen=True, eq=False)
class Task:
    """What a network is for. score: {"quality": ...}, more is better. data: training, choosing, test."""

    make: Callable[[], nn.Module]
    loss: Callable[[Any, Tensor], Tensor]
    score: Callable[[nn.Module, Pairs], dict[str, float]]
    data: Callable[[], tuple[Pairs, Pairs, Pairs]]
    moved: bool = False  # images are moved and mirrored at random
    epochs: Epochs = Epochs()


@cache
def images() -> fashion.Data:
    """All of Fashion-MNIST."""
    folder = fashion.folder()
    assert folder is not None
    return fashion.load(folder)


def _plain(part: str) -> Tensor:
    """Images from 0 to 1."""
    x: Tensor = getattr(images(), part)
    low, high = images().x.min(), images().x.max()
    return (x - low) / (high - low)


@cache
def _classes() -> tuple[Pairs, Pairs, Pairs]:
    d = images()
    return Pairs(d.x[::2], d.y[::2]), Pairs(d.choose_x, d.choose_y), Pairs(d.test_x, d.test_y)


@cache
def _canvases() -> tuple[Pairs, Pairs, Pairs]:
    d = images()
    parts = (("x", d.y, 16000), ("choose_x", d.choose_y, 2000), ("test_x", d.test_y, 4000))
    a, b, c = (scenes.canvases(_plain(name), y, n, seed) for seed, (name, y, n) in enumerate(parts))
    return a, b, c


@cache
def _outlines() -> tuple[Pairs, Pairs, Pairs]:
    a, b, c = (scenes.outlines(_plain(name)) for name in ("x", "choose_x", "test_x"))
    return Pairs(a.x[:24000], a.y[:24000]), b, c


def _accuracy(network: nn.Module, data: Pairs) -> dict[str, float]:
    return {"quality": fashion.accuracy(network, data.x, data.y)}


def _labels(logits: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(logits.float(), y)


def resnet(widths: Sequence[int] = (8, 16, 32), blocks: int = 3) -> nn.Sequential:
    """ResNet-20 of He et al., CVPR 2016, 4.2, half as wide, with a stride of 2 in its first convolution."""
    i = widths[0]
    layers: list[nn.Module] = [nn.Conv2d(1, i, 3, 2, 1, bias=False), nn.BatchNorm2d(i), nn.ReLU()]
    for stage, o in enumerate(widths):
        for block in range(blocks):
            layers.append(fashion.Residual(i, o, 2 if stage and not block else 1))
            i = o
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(i, 10))


TASKS = {
    "pas-vgg": Task(pas_vgg, _labels, _accuracy, _classes, True),
    "resnet": Task(resnet, _labels, _accuracy, _classes, True),
    "pas-light": Task(pas_light, _labels, _accuracy, _classes, True),
    "segmentation": Task(scenes.Finder, scenes.finding_loss, scenes.finding_score, _canvases, epochs=SHORT),
    "translation": Task(scenes.Painter, scenes.painting_loss, scenes.painting_score, _outlines, epochs=SHORT),
}


@dataclass(frozen=True)
class Case:
    """A row: what goes of the multiply-adds, how it is chosen, and what is limited: macs or latency."""

    network: str
    removed: float
    method: str
    limit: str
    seed: int

    @property
    def key(self) -> str:
        """The row's name."""
        return f"{self.network} {self.removed:g} {self.method} {self.limit} seed {self.seed}"


def cases() -> list[Case]:
    """Seed after seed; a row with a budget of milliseconds comes after the one that it is compared with."""
    found = []
    for seed in SEEDS:
        for network in ("pas-vgg", "resnet"):
            for removed in (0.5, 0.75):
                found += [Case(network, removed, method, "macs", seed) for method in width_goals.METHODS]
                found.append(Case(network, removed, "pas", "latency", seed))
        for network in ("segmentation", "translation"):
            found += [Case(network, 0.5, method, "macs", seed) for method in ("pas", "uniform")]
    families = [("pas-vgg", removed) for removed in (0.3, 0.66, 0.82)] + [
        ("pas-light", removed) for removed in (0.5, 0.75)
    ]
    return found + [
        Case(network, removed, method, "macs", 0) for network, removed in families for method in ("pas", "uniform")
    ]


def merged(model: nn.Module) -> nn.Module:
    """As it is used."""
    return merge(model) if branched(model) else model


def fit(
    network: nn.Module,
    parameters: Sequence[nn.Parameter],
    task: Task,
    data: Pairs,
    epochs: int,
    rate: Callable[[float], float],
    seed: int,
    search: WidthSearch | None = None,
    look: Callable[[], None] = lambda: None,
) -> float:
    """Train in place, in bfloat16 where the layers like it; seconds, without `look`. rate: of 0 to 1, how far the
    training is. look: called at the shares CALIBRATED of it, and at its end."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    network.train()
    optimizer = torch.optim.SGD(parameters, lr=rate(0.0), momentum=0.9, nesterov=True, weight_decay=WEIGHT_DECAY)
    n_batches, step, spent = len(data.x) // BATCH, 0, 0.0
    marks = {round(share * epochs * n_batches) for share in (*CALIBRATED, 1.0)}
    shift = fashion.SHIFT
    windows = functional.pad(data.x, (shift,) * 4, value=float(data.x.min())).unfold(2, 28, 1).unfold(3, 28, 1)
    for epoch in range(epochs):
        start, lost = time.perf_counter(), 0.0
        for batch in torch.randperm(len(data.x), generator=generator)[: n_batches * BATCH].split(BATCH):
            x = fashion.augmented(data.x, windows, batch, generator) if task.moved else data.x[batch]
            for group in optimizer.param_groups:
                group["lr"] = rate(step / (epochs * n_batches))
            with torch.autocast("cpu", torch.bfloat16):
                answers = network(x.contiguous(memory_format=fashion.LAST))
            loss = task.loss(answers, data.y[batch])
            lost += float(loss.detach())
            if search is not None:
                loss = loss + search.penalty()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if search is not None:
                search.step()
            step += 1
            if step in marks:
                spent += time.perf_counter() - start
                look()
                start = time.perf_counter()
        spent += time.perf_counter() - start
        print(f"  epoch {epoch + 1} of {epochs}: loss {lost / n_batches:.4f}, {spent:.0f} s", flush=True)
    network.eval()
    return spent


def one_cycle(top: float) -> Callable[[float], float]:
    """Up for a fifth, then down."""
    return lambda t: top * (0.04 + 0.96 * t / 0.2 if t < 0.2 else _falling((t - 0.2) / 0.8))


def falling(top: float) -> Callable[[float], float]:
    """Half a cosine wave."""
    return lambda t: top * _falling(t)


def _falling(t: float) -> float:
    return (1 + math.cos(math.pi * t)) / 2


def dense(network: str, seed: int, epochs: Epochs, train: Pairs, test: Pairs, keep: bool) -> tuple[nn.Module, float]:
    """The dense network of a seed and its quality; trained where it isn't kept."""
    task, key, path = TASKS[network], f"{network} dense seed {seed}", KEPT / f"{network}-dense-{seed}.pt"
    torch.manual_seed(seed)
    model = task.make()
    with FileLock(f"{path}.lock"):
        known = store.latest(store.read(RESULTS)).get(key)
        if keep and known is not None and path.exists():
            model.load_state_dict(torch.load(path, weights_only=True))
            return model.eval(), float(known["quality"])
        spent = fit(model, list(model.parameters()), task, train, epochs.dense, one_cycle(RATE), seed)
        found = task.score(model, test)
        if keep:
            torch.save(model.state_dict(), path)
            _append({"key": key, "network": network, "seed": seed, **found, "epochs": epochs.dense, "spent_s": spent})
        return model, found["quality"]


def measure(case: Case, epochs: Epochs, quick: bool, scale: int = 1) -> store.Row:
    """Search, fine-tune, shrink, compile; the quality of the smaller network and its time."""
    task = TASKS[case.network]
    train, choose, test = task.data()
    if quick:
        train, test = Pairs(train.x[::scale], train.y[::scale]), choose
    model, before = dense(case.network, case.seed, epochs, train, test, not quick)
    example, budget, budget_ms = test.x[:2], 1 - case.removed, 0.0
    of: Callable[[Any], Cost] = macs
    table: Latency | None = None
    if case.limit == "latency":
        budget_ms = store.latest(store.read(RESULTS))[replace(case, limit="macs").key]["ms"]
        table = ready = latency_of(model, example, 1)
        of, budget = (lambda _: ready), share_of(ready, budget_ms)
    search = WidthSearch(model, example, of, budget, epochs.search * (len(train.x) // BATCH))
    searched_s, finetune = 0.0, epochs.finetune

    def milliseconds(smaller: nn.Module) -> float:
        return compiled(smaller, example, 1).ms

    def look() -> None:
        keep = search.network.keep()
        said = " ".join(f"{int(keep[members].sum())}/{len(members)}" for members in search.groups.bundles)
        print(f"    cost {search.found(keep).cost:.4f}, widths {said}", flush=True)
        if table is not None:
            calibrate(search, table, budget_ms, keep, milliseconds(search.shrink(keep)))

    if case.method == "pas":
        searched_s = fit(search.network, search.network.weights(), task, train, epochs.search,
                         lambda t: SEARCH_RATE, case.seed + 100, search, look)  # fmt: skip
        keep = (
            search.trimmed()
            if table is None
            else meet(search, table, budget_ms, milliseconds, progress=print, steps=steps_down(lanes()))[0].keep
        )
    else:
        merged, finetune = search.merged(), epochs.finetune + epochs.search
        worth = magnitude(merged, search.groups)
        if case.method == "uniform":
            keep = uniform(search.groups, worth, search.cost, budget)
        else:
            scores = worth if case.method == "magnitude" else bn_gamma(model, merged, search.groups)
            keep = by_scores(search.groups, scores, search.cost, budget)
    found = search.freeze(keep)
    finetuned_s = fit(search.network, search.network.weights(), task, train, finetune,
                      falling(FINE_RATE), case.seed + 200)  # fmt: skip
    smaller = search.shrink().eval()
    n_macs = macs(find_groups(smaller, example)).whole / len(example)
    row: store.Row = {
        "key": case.key, **asdict(case), **task.score(smaller, test), "dense": before, "cost": found.cost,
        "macs": n_macs, "widths": {name: list(pair) for name, pair in found.widths.items()},
        "ms": milliseconds(smaller), "budget_ms": budget_ms, "epochs": [epochs.search, finetune],
        "search_s": searched_s, "finetune_s": finetuned_s,
    }  # fmt: skip
    if not quick:
        export_onnx(smaller, KEPT / f"{case.key.replace(' ', '-')}.onnx", example)
    return row


def _append(row: store.Row) -> None:
    with FileLock(f"{RESULTS}.lock"):
        store.append(RESULTS, {**store.stamp(), **row})


def main() -> int:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="rows whose name holds one of these")
    parser.add_argument("--share", default="1/1", help="i/n: every n-th row, from the i-th")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--list", action="store_true", help="print the names of the rows")
    parser.add_argument("--quick", type=int, metavar="N", help="every N-th image, fewer epochs; writes no results")
    parser.add_argument("--epochs", help="of --quick, such as 6,2,4: dense, search, fine-tuning")
    options = parser.parse_args()
    chosen = [case for case in cases() if any(text in case.key for text in options.only)]
    index, n_shares = map(int, options.share.split("/"))
    if options.list:
        print("\n".join(case.key for case in chosen))
        return 0
    if fashion.folder() is None:
        print("no Fashion-MNIST: apt install dataset-fashion-mnist, or set PRUNUS_DATA")
        return 1
    torch.set_num_threads(options.threads)
    KEPT.mkdir(parents=True, exist_ok=True)
    asked = Epochs(*map(int, options.epochs.split(","))) if options.quick and options.epochs else None
    for case in chosen[index - 1 :: n_shares]:
        if not options.quick and case.key in store.latest(store.read(RESULTS)):
            print(f"{case.key}: measured")
            continue
        print(case.key, flush=True)
        row = measure(case, asked or TASKS[case.network].epochs, bool(options.quick), options.quick or 1)
        if not options.quick:
            _append(row)
        print(json.dumps({key: value for key, value in row.items() if key != "widths"}), flush=True)
    for line in width_goals.table(store.read(RESULTS)):
        said = ", ".join(f"{name} {value:.4f}" for name, value in line.quality.items())
        print(f"{line.network} {line.removed:.0%} removed: dense {line.dense:.4f}, {said} ({line.seeds} seeds)")
    print(*width_goals.verdicts(store.read(RESULTS)), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
