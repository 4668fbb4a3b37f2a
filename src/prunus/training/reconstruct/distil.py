"""Further training of a sparse network on unlabelled data: it learns to answer as the dense one does, at each layer and
at the end, with its zeros kept.

Sources: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, arXiv:1503.02531 (answers); Romero et al.,
"FitNets", ICLR 2015, arXiv:1412.6550 (outputs of layers), here of every pruned layer, relative to their size.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from prunus.errors import TrainingError
from prunus.training.reconstruct.calls import Range, Watch

Batch = tuple[Tensor, ...]
WARM = 0.05  # part of the steps in which the learning rate rises


def distil(
    sparse: nn.Module,
    dense: nn.Module,
    masks: Mapping[str, NDArray[np.bool_]],
    learned: Mapping[str, Tensor],
    batches: Sequence[Batch],
    epochs: int,
    *,
    rate: float,
    seed: int,
    report: Callable[[int, float], None] | None = None,
) -> None:
    """Train the `learned` tensors of `sparse` in place by Adam, one step per batch, in evaluation mode.

    masks: by the parameter's name. rate: at its highest, relative to the size of each tensor; a cosine to zero.
    report: gets epoch and mean loss.
    Raises TrainingError: a loss that isn't finite.
    """
    names = list(masks)
    kept = {name: torch.from_numpy(mask).to(sparse.get_parameter(name)) for name, mask in masks.items()}
    before = {parameter: parameter.requires_grad for parameter in sparse.parameters()}
    sparse.requires_grad_(False)
    for tensor in learned.values():
        tensor.requires_grad_(True)
    sizes = [_size(tensor) for tensor in learned.values()]
    optimiser = torch.optim.Adam([{"params": [tensor]} for tensor in learned.values()])
    n_steps, order = epochs * len(batches), torch.Generator().manual_seed(seed)
    step = 0
    try:
        for epoch in range(epochs):
            total = 0.0
            for batch in mixed(batches, order):
                with torch.no_grad():
                    wanted = _observe(dense, names, batch)
                loss = _loss(_observe(sparse, names, batch), wanted)
                value = float(loss.detach())
                if not math.isfinite(value):
                    raise TrainingError(f"distillation: the loss is {value} in epoch {epoch}: lower the rate")
                for group, size in zip(optimiser.param_groups, sizes, strict=True):
                    group["lr"] = rate * size * _schedule(step, n_steps)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                with torch.no_grad():
                    for name, mask in kept.items():
                        sparse.get_parameter(name).mul_(mask)
                step += 1
                total += value
            if report is not None:
                report(epoch, total / len(batches))
    finally:
        optimiser.zero_grad(set_to_none=True)
        for parameter, wants in before.items():
            parameter.requires_grad_(wants)


def mixed(batches: Sequence[Batch], order: torch.Generator) -> Iterator[Batch]:
    """The samples in new batches, as many and of the sizes that there were: neighbours are often alike."""
    if len({tuple(part.shape[1:] for part in batch) for batch in batches}) > 1:
        yield from (batches[index] for index in torch.randperm(len(batches), generator=order).tolist())
        return
    places = [(number, row) for number, batch in enumerate(batches) for row in range(len(batch[0]))]
    drawn = [places[index] for index in torch.randperm(len(places), generator=order).tolist()]
    for batch in batches:
        chosen, drawn = drawn[: len(batch[0])], drawn[len(batch[0]) :]
        yield tuple(_stacked([batches[number][part][row] for number, row in chosen]) for part in range(len(batch)))


def _stacked(samples: list[Tensor]) -> Tensor:
    """A batch, in the memory format of the samples."""
    stacked = torch.stack(samples)
    last = samples[0].ndim == 3 and samples[0].movedim(0, -1).is_contiguous()
    return stacked.contiguous(memory_format=torch.channels_last) if last else stacked


def _size(tensor: Tensor) -> float:
    """The root mean square of what isn't zero: steps are relative to it, as layers differ by orders of magnitude.
    Source: Shazeer and Stern, "Adafactor", ICML 2018, arXiv:1804.04235, section 8."""
    kept = tensor.detach()[tensor.detach() != 0]
    return max(float(kept.square().mean().sqrt()), 1e-3) if len(kept) else 1e-3


def _schedule(step: int, n_steps: int) -> float:
    warm = max(int(WARM * n_steps), 1)
    if step < warm:
        return (step + 1) / (warm + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(n_steps - warm, 1)))


def _observe(model: nn.Module, names: Sequence[str], batch: Batch) -> list[Tensor]:
    """What the layers with the named weights answer, cut off as the network cuts it off, and what the network does."""
    seen: list[tuple[str, Tensor]] = []
    watch = Watch({name: model.get_parameter(name) for name in names}, lambda name, c: seen.append((name, c.output)))
    with watch:
        answers = flat(model(*batch))
    return [*(_cut(tensor, watch.ranges.get(name)) for name, tensor in seen), *answers]


def _cut(tensor: Tensor, bounds: Range | None) -> Tensor:
    return tensor if bounds is None else tensor.clamp(*bounds)


def flat(value: object) -> list[Tensor]:
    """The tensors of nested outputs."""
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for part in parts for tensor in flat(part)]


def _loss(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """The mean of the relative squared errors, and the divergence of the last output, the network's, as scores of
    classes: it too is zero where the answers are the same, and weighs what may change the best of them."""
    errors = [
        (a - b).square().mean() / b.square().mean().clamp(min=1e-12)
        for a, b in zip(found, wanted, strict=True)
        if b.is_floating_point()
    ]
    loss = errors[-1] + torch.stack(errors).mean()
    if wanted[-1].ndim == 2 and wanted[-1].shape[1] > 1:
        a, b = (functional.log_softmax(scores[-1], 1) for scores in (found, wanted))
        loss = loss + functional.kl_div(a, b, log_target=True, reduction="batchmean")
    return loss
