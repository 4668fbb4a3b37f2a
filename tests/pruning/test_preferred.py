"""The scheme that a precision and target like, and that pruning takes it."""

import pytest
from tests.runtime.networks import residual

import prunus
from prunus.errors import TargetError
from prunus.pruning.preferred import preferred_scheme
from prunus.runtime.cpu import TARGETS


def test_quads_for_int8_and_pairs_where_there_is_bf16() -> None:
    assert {preferred_scheme("int8", target) for target in TARGETS} == {"punched:8x4"}
    assert preferred_scheme("bf16", "x86-64-avx512-bf16") == preferred_scheme("bf16", "aarch64-i8mm") == "punched:8x2"
    assert preferred_scheme("bf16", "x86-64-avx2") == preferred_scheme("fp32", "x86-64-avx2") == "bcr:8x64"


@pytest.mark.parametrize("given", [("int4", None), ("int8", "riscv")])
def test_unknown(given: tuple[str, str | None]) -> None:
    with pytest.raises(TargetError, match="expected one of"):
        preferred_scheme(*given)


def test_pruned_by_it() -> None:
    stated = {p.key: p.value for p in prunus.prune_onnx(residual(), sparsity=0.5, precision="int8").metadata_props}
    assert stated["prunus.scheme"] == "punched:8x4"
