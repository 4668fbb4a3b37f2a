"""Which scheme to prune by where the user names none: the shape that the kernels of a target and precision like."""

from prunus.errors import TargetError
from prunus.runtime.cpu import TARGETS, describe

PREFERRED = {"fp32": "bcr:8x64", "bf16": "punched:8x2", "int8": "punched:8x4"}


def preferred_scheme(precision: str = "fp32", target: str | None = None) -> str:
    """The scheme for a precision on a target (None: this CPU): pairs of channels for bf16 where there are instructions
    for it, quads for int8.

    Raises TargetError: no such precision or target.
    """
    if precision not in PREFERRED:
        raise TargetError(f"precision {precision!r}: expected one of {', '.join(PREFERRED)}")
    if target is not None and target not in TARGETS:
        raise TargetError(f"target {target!r}: expected one of {', '.join(TARGETS)}")
    chosen = target or describe().best_target
    has_bf16 = chosen is not None and any("bf16" in feature for feature in TARGETS[chosen][1])
    return PREFERRED["fp32" if precision == "bf16" and not has_bf16 else precision]
