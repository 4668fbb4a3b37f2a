"""The weights of a torch module that can be pruned, and which rule of a recipe each of them falls under."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import final

from torch import Tensor, fx, nn

from prunus.errors import RuleError, TrainingError
from prunus.pruning.selection import matches, select
from prunus.sparsity.check import fits
from prunus.sparsity.project import resolve_sparsity
from prunus.sparsity.scheme import Scheme, parse
from prunus.training.functional import called_weights
from prunus.training.recipe import Rule

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
COMPUTED = "its weight is computed from other parameters"
RECURRENT = (nn.RNN, nn.LSTM, nn.GRU, nn.RNNCell, nn.LSTMCell, nn.GRUCell)


@final
@dataclass(frozen=True, eq=False)
class Layer:
    """A weight of a module, filters first: [o, i, ...], gates of recurrent layers stacked as rows.

    name: of the module. parameter: of the weight, as `named_parameters` has it. refusal: why it can't be pruned, "" if
    it can. aliases: names of other modules and parameters that share it. n_gates: matrices of one height that are
    stacked in it.
    """

    name: str
    parameter: str
    module: nn.Module
    refusal: str = ""
    aliases: tuple[str, ...] = ()
    n_gates: int = 1

    @property
    def weight(self) -> Tensor:
        """The parameter as it is now: moving a module may have replaced it."""
        weight = getattr(self.module, self.parameter.rpartition(".")[2])
        assert isinstance(weight, Tensor)
        return weight

    @property
    def names(self) -> tuple[str, ...]:
        """All by which a rule may call it."""
        return (self.name, self.parameter, *self.aliases)


@final
@dataclass(frozen=True, eq=False)
class Target:
    """A layer that is to be pruned. sparsity: None where the method decides. kept: the zeros that it has are to stay,
    and no others come."""

    layer: Layer
    scheme: Scheme
    sparsity: float | None
    kept: bool = False


@final
@dataclass(frozen=True, eq=False)
class Dense:
    """A layer that stays as it is, and why."""

    layer: Layer
    reason: str


def find_layers(model: nn.Module) -> tuple[Layer, ...]:
    """Weights of convolutions, linear and recurrent layers, in the order of modules; one that several share comes once,
    under its first name.

    Raises TrainingError: it isn't a module, or it has lazy layers that haven't seen an input yet.
    """
    if not isinstance(model, nn.Module):
        raise TrainingError(f"model: found {type(model).__name__}, expected a torch.nn.Module")
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise TrainingError(f"{name} has no shape yet, expected a network whose lazy layers have seen an input")
    found: dict[int, Layer] = {}
    for layer in _all(model):
        # a computed weight is another tensor each time it is asked for
        key = id(layer.weight) if isinstance(layer.weight, nn.Parameter) else id(layer)
        first = found.setdefault(key, layer)
        if first is not layer:
            refusal = first.refusal or layer.refusal
            found[key] = replace(first, refusal=refusal, aliases=(*first.aliases, layer.name, layer.parameter))
    return tuple(found.values())


def _all(model: nn.Module) -> Iterator[Layer]:
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        if _is_computed(module):
            yield Layer(name, f"{prefix}weight", module, COMPUTED)
        elif isinstance(module, CONVOLUTIONS):
            refusal = "grouped convolution" if module.groups != 1 else ""
            yield Layer(name, f"{prefix}weight", module, refusal)
        elif isinstance(module, TRANSPOSED):
            yield Layer(name, f"{prefix}weight", module, "transposed convolution")
        elif isinstance(module, nn.Linear):
            yield Layer(name, f"{prefix}weight", module)
        elif isinstance(module, RECURRENT):
            for key in getattr(module, "_flat_weights_names", ("weight_ih", "weight_hh")):
                if key.startswith("weight_"):
                    weight = getattr(module, key)
                    refusal = "" if isinstance(weight, nn.Parameter) else COMPUTED
                    n_gates = 1 if key.startswith("weight_hr") else len(weight) // module.hidden_size
                    yield Layer(name, f"{prefix}{key}", module, refusal, n_gates=n_gates)
        elif isinstance(module, fx.GraphModule):
            for path, holder, refusal in called_weights(module):
                yield Layer(prefix + path.removesuffix(".weight"), prefix + path, holder, refusal)


def _is_computed(module: nn.Module) -> bool:
    """Does a parametrisation (weight_norm, spectral_norm) make the weight anew for each use?"""
    kinds = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)
    return isinstance(module, kinds) and not isinstance(getattr(module, "weight", None), nn.Parameter)


def assign(layers: Sequence[Layer], rules: Sequence[Rule]) -> tuple[tuple[Target, ...], tuple[Dense, ...]]:
    """What each layer is to become: the first rule that matches decides, and without one it stays dense.

    Raises RuleError: a rule that matches no layer, or no layer is left to prune. SchemeError: a sparsity that the
    scheme can't have.
    """
    names = [layer.names for layer in layers]
    for rule in rules:
        select([rule.match], names)
    targets, dense = list[Target](), list[Dense]()
    for layer, known in zip(layers, names, strict=True):
        first = next((rule for rule in rules if matches(rule.match, known)), None)
        if first is None or first.skip:
            dense.append(Dense(layer, "skipped" if first else "no rule"))
            continue
        assert first.scheme is not None
        scheme = parse(first.scheme)
        misfit = fits(tuple(layer.weight.shape), scheme)
        if reason := layer.refusal or (misfit.reason if misfit else ""):
            dense.append(Dense(layer, reason))
            continue
        fixed = first.sparsity is not None or scheme.name in ("n:m", "pattern")
        sparsity = resolve_sparsity(scheme, first.sparsity) if fixed else None
        targets.append(Target(layer, scheme, sparsity, first.keep))
    if not targets:
        reasons = "; ".join(f"{item.layer.name}: {item.reason}" for item in dense[:3]) or "it has no layers"
        raise RuleError(f"no layer is left to prune ({reasons})")
    return tuple(targets), tuple(dense)
