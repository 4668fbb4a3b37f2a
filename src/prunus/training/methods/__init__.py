"""The list of methods: how zeros come about. A new method is a file here, a row there, and a name in the recipe."""

from prunus.training.methods.admm import Admm
from prunus.training.methods.gradual import Gradual
from prunus.training.methods.method import Method, Work
from prunus.training.methods.one_shot import OneShot
from prunus.training.methods.reweighted import Reweighted

METHODS: dict[str, type[OneShot | Gradual | Admm | Reweighted]] = {
    "one-shot": OneShot,
    "gradual": Gradual,
    "admm": Admm,
    "reweighted": Reweighted,
}
__all__ = ["METHODS", "Method", "Work"]
