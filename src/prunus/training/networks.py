"""The network of a recipe: built by a function, by timm or from ONNX, with weights from a file."""

import pickle
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from prunus.errors import MissingExtraError, TrainingError
from prunus.training.named import call, find_function
from prunus.training.standard import Network


def build(network: Network, seed: int) -> nn.Module:
    """The module, the same at every call; on the CPU, in float32.

    Raises TrainingError: there is no such function, or it fails or returns something else; weights that don't fit.
    ModelError, UnsupportedError: of an ONNX file. MissingExtraError: timm isn't installed.
    """
    torch.manual_seed(seed)
    if network.build.endswith(".onnx"):
        from prunus.pruning.torch_module import to_module

        module: nn.Module = to_module(network.build)
    elif network.build.startswith("timm:"):
        module = _from_timm(network)
    else:
        made = call(find_function(network.build, "model.build"), network.arguments, network.build, "model.build")
        if not isinstance(made, nn.Module):
            raise TrainingError(
                f"model.build: {network.build} returned a {type(made).__name__}, expected a torch.nn.Module"
            )
        module = made
    module = module.float()
    if network.weights is not None:
        load_weights(module, read_weights(Path(network.weights)), network.weights)
    return module


def has_weights(network: Network) -> bool:
    """Does the network come trained?"""
    return (
        network.weights is not None
        or network.build.endswith(".onnx")
        or (network.build.startswith("timm:") and bool(network.arguments.get("pretrained")))
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name out of a file of safetensors or of torch, of the latter with nothing but tensors in it.

    Raises TrainingError: no such file, or not that.
    """
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise TrainingError(f"{path}: no such file, expected weights") from error
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, safetensors.SafetensorError) as error:
        reason = (str(error).splitlines() or ["empty"])[0]
        raise TrainingError(f"{path}: not weights that can be read: {reason}") from error
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise TrainingError(f"{path}: found no tensors by name, expected a state_dict")
    return {str(name): tensor for name, tensor in found.items()}


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Put weights into a module; names and shapes have to be the module's.

    Raises TrainingError: a name or shape differs; says the first.
    """
    own = module.state_dict()
    for name, tensor in own.items():
        if name not in weights:
            raise TrainingError(f"{where}: no {name}; it has {', '.join(list(weights)[:3]) or 'nothing'}, ...")
        if weights[name].shape != tensor.shape:
            raise TrainingError(f"{where}: {name} is {list(weights[name].shape)}, expected {list(tensor.shape)}")
    if extra := [name for name in weights if name not in own]:
        raise TrainingError(f"{where}: {extra[0]} is none of the network's; it has {', '.join(list(own)[:3])}, ...")
    module.load_state_dict(dict(weights))


def _from_timm(network: Network) -> nn.Module:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"model.build: {network.build}: needs timm, which is not installed") from error
    name = network.build.partition(":")[2]
    made = call(timm.create_model, {"model_name": name, **network.arguments}, network.build, "model.build")
    assert isinstance(made, nn.Module)
    return made
