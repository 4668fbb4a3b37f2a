"""The attacks that need no training, by name; tests walk them."""

from collections.abc import Mapping
from typing import Final

from prunus.audit.attacks.deepfool import DeepFoolUap
from prunus.audit.attacks.steps import Pgd
from prunus.audit.attacks.stochastic import RandomSigns, Sga, SgdUap
from prunus.audit.problem import Attack

ATTACKS: Final[Mapping[str, Attack]] = {
    "pgd": Pgd(), "sgd-uap": SgdUap(), "sga": Sga(), "deepfool": DeepFoolUap(), "random": RandomSigns(),
}  # fmt: skip
