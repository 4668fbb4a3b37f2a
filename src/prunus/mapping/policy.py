"""A policy that maps a network layer by layer: an LSTM that sees each layer and what was chosen for those before it."""

import math
from collections.abc import Callable
from typing import final

import torch
from torch import Tensor, nn

from prunus.mapping.space import LayerSpace, Option, Space

Pick = Callable[[int, Tensor], Tensor]  # of layer and log-probabilities [n, options], the options [n]
HIDDEN = 64
LEANING = 0.75  # probability of the option to start from, in each layer
COMPARED = 32  # length of what options and the LSTM's wishes are compared in


@final
class Policy(nn.Module):
    """A distribution over mappings of a space; at first nearly even, or around `start` where one is given.

    An option is scored by what it is (scheme, sparsity, time), so that layers learn from each other, and by a number of
    its own.
    """

    def __init__(self, space: Space, seed: int, start: tuple[int, ...] | None = None) -> None:
        super().__init__()
        states, options, there = _tables(space)
        self.states, self.options, self.there = states, options, there
        n_layers, most, n_features = options.shape
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            self.cell = nn.LSTMCell(states.shape[1] + n_features, HIDDEN)
            self.wish = nn.Linear(HIDDEN, COMPARED)
            self.offer = nn.Linear(n_features, COMPARED, bias=False)
        self.own = nn.Parameter(torch.zeros(n_layers, most))
        if start is not None:
            with torch.no_grad():
                odds = LEANING / (1 - LEANING) * (there.sum(1) - 1).clamp(min=1)
                self.own[torch.arange(n_layers), torch.tensor(start)] = odds.log()

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """int64[n, layers]: mappings by chance."""
        with torch.no_grad():
            return self._walk(n, lambda _, weights: torch.multinomial(weights.exp(), 1, generator=generator)[:, 0])[0]

    def likeliest(self) -> tuple[int, ...]:
        """The mapping made of each layer's most probable option, given those before it."""
        with torch.no_grad():
            return tuple(self._walk(1, lambda _, weights: weights.argmax(1))[0][0].tolist())

    def judge(self, mappings: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithm of the probability of each mapping, float[n], and the mean entropy over its layers, float[n]."""
        _, logs, entropies = self._walk(len(mappings), lambda layer, _: mappings[:, layer])
        return logs, entropies

    def _walk(self, n: int, pick: Pick) -> tuple[Tensor, Tensor, Tensor]:
        offers = self.offer(self.options) / math.sqrt(COMPARED)
        before = torch.zeros(n, self.options.shape[2])
        state = (torch.zeros(n, HIDDEN), torch.zeros(n, HIDDEN))
        picked, logs, entropies = [], torch.zeros(n), torch.zeros(n)
        for layer, seen in enumerate(self.states):
            state = self.cell(torch.cat([seen.expand(n, -1), before], 1), state)
            scores = self.wish(state[0]) @ offers[layer].T + self.own[layer]
            weights = scores.masked_fill(~self.there[layer], -math.inf).log_softmax(1)
            chosen = pick(layer, weights)
            picked.append(chosen)
            logs = logs + weights.gather(1, chosen[:, None])[:, 0]
            finite = weights.masked_fill(~self.there[layer], 0.0)
            entropies = entropies - (finite.exp() * finite).sum(1) / len(self.states)
            before = self.options[layer][chosen]
        return torch.stack(picked, 1), logs, entropies


def _tables(space: Space) -> tuple[Tensor, Tensor, Tensor]:
    """States float[layers, ...], options float[layers, most, ...], and which of the options there are, bool."""
    schemes = sorted({o.scheme for layer in space.layers for o in layer.options if o.scheme is not None})
    ops = sorted({layer.op for layer in space.layers})
    most = max(len(layer.options) for layer in space.layers)
    states, options = [], torch.zeros(len(space.layers), most, len(schemes) + 3)
    there = torch.zeros(len(space.layers), most, dtype=torch.bool)
    for number, layer in enumerate(space.layers):
        place = number / max(len(space.layers) - 1, 1)
        states.append([float(layer.op == op) for op in ops] + _sizes(layer) + [place, layer.dense_ms / space.dense_ms])
        there[number, : len(layer.options)] = True
        for i, option in enumerate(layer.options):
            options[number, i] = torch.tensor(_about(option, layer, schemes))
    return torch.tensor(states), options, there


def _sizes(layer: LayerSpace) -> list[float]:
    """Filters, channels, positions of the kernel and pixels of the output, by their logarithms, about 0 to 1."""
    o, i, *kernel = (*layer.shape, 1, 1)[: max(len(layer.shape), 2)]
    n_weights = math.prod(layer.shape)
    return [math.log2(max(n, 1)) / 10 for n in (o, i, math.prod(kernel), layer.macs / max(n_weights, 1))]


def _about(option: Option, layer: LayerSpace, schemes: list[str]) -> list[float]:
    dense = layer.dense_ms or 1.0
    kinds = [float(option.scheme == scheme) for scheme in (*schemes, None)]
    return [*kinds, option.sparsity, option.ms / dense]
