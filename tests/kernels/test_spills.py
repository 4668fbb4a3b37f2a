"""No inner loop of a micro-kernel keeps a sum in memory: spills halve its speed and change no result."""

import re
import tempfile
from functools import cache
from pathlib import Path

import pytest

from prunus.kernels import toolchain
from prunus.kernels.isa import LANES_TILES, Isa, isa_of
from prunus.kernels.source import PACKS, sources
from prunus.runtime.records import LANES_WHOLE

MULTIPLIES = re.compile(r"\tv(fmadd|pdpbusd|dpbf16ps|pmaddwd|pmaddubsw)")
JUMP = re.compile(r"\tj\w+\t(\.L\w+)")
STACK = re.compile(r"\(%r[sb]p")
OWN_TESTS = {"x86-64-avx512-bf16": (1, 2, 4), "x86-64-avx2": (1, 4)}  # channels per word; bf16 only where it is used


def instructions(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("\t") and not line.startswith("\t.")]


@cache
def assembly(isa: Isa) -> str:
    """The kernel library as the packaged clang compiles it."""
    compiler = toolchain.Compiler(toolchain.find().command, "", True)
    with tempfile.TemporaryDirectory() as folder:
        for name, text in sources(isa).items():
            (Path(folder) / name).write_text(text)
        command = [*compiler.command, *compiler.arguments(isa), *toolchain.FLAGS, f"-DVB={isa.vector_bytes}", "-I."]
        toolchain.run([*command, "-S", "executor.c", "-o", "executor.s"], Path(folder))
        return (Path(folder) / "executor.s").read_text()


def function(text: str, name: str) -> list[str]:
    """The lines of a function."""
    begin = text.index(f"\n{name}:")
    return text[begin : text.index("\n.Lfunc_end", begin)].splitlines()[1:]


def innermost_loops(lines: list[str]) -> list[list[str]]:
    """From a label to a jump back to it, with no other label in between."""
    labels = {line.split(":")[0]: i for i, line in enumerate(lines) if line.startswith(".L")}
    loops = []
    for i, line in enumerate(lines):
        jump = JUMP.match(line)
        if jump and labels.get(jump[1], i) < i:
            body = lines[labels[jump[1]] + 1 : i + 1]
            loops += [] if any(other.startswith(".L") for other in body) else [body]
    return loops


def test_loops_are_found() -> None:
    """What the test below rests on, on a function made up."""
    loop = [".LBB0_1:", "\tvmovaps\t(%rsp), %zmm0", "\tvfmadd231ps\t%zmm1, %zmm0, %zmm2", "\tjne\t.LBB0_1"]
    found = innermost_loops([".LBB0_0:", *loop, "\tjne\t.LBB0_0"])
    assert found == [loop[1:]]
    assert any(STACK.search(line) for line in found[0])
    assert any(MULTIPLIES.search(line) for line in found[0])


@pytest.mark.slow
@pytest.mark.parametrize("pack", PACKS)
@pytest.mark.parametrize("target", OWN_TESTS)
def test_sums_stay_in_registers(target: str, pack: int) -> None:
    if pack not in OWN_TESTS[target]:
        pytest.skip(f"{target} has no instruction for words of {pack} channels, and isn't used for them")
    if not toolchain.find().packaged:
        pytest.skip("another compiler than the packaged clang was asked for")
    isa = isa_of(target)
    text = assembly(isa)
    for height, most in isa.tiles_of(pack):
        for vectors in range(1, most + 1):
            name = f"prunus_{PACKS[pack][0]}_group_{height}x{vectors}"
            loops = [
                loop for loop in innermost_loops(function(text, name)) if any(MULTIPLIES.match(line) for line in loop)
            ]
            assert loops, f"{name}: no loop that multiplies"
            for loop in loops:
                multiplies = sum(bool(MULTIPLIES.match(line)) for line in loop)
                assert multiplies >= height * vectors, f"{name}: a loop of {multiplies} products"
                spilled = [line for line in instructions(loop) if STACK.search(line)]
                assert not spilled, f"{name}: the stack in a loop of {len(instructions(loop))} instructions: {spilled}"


@pytest.mark.slow
@pytest.mark.parametrize("target", OWN_TESTS)
def test_sums_of_small_maps_stay_in_registers(target: str) -> None:
    if not toolchain.find().packaged:
        pytest.skip("another compiler than the packaged clang was asked for")
    isa = isa_of(target)
    text = assembly(isa)
    for high, wide in LANES_TILES:
        for height in isa.lanes_heights(high * wide)[:-1]:
            name, vectors = f"prunus_f32_lanes_{height}_{high}x{wide}_by_1", -(-height // isa.lanes)
            cut = (high, wide) in LANES_WHOLE
            sizes = {vectors * h * w for h in {high, high - cut} for w in {wide, wide - cut}}
            loops = [
                loop for loop in innermost_loops(function(text, name)) if sum(map(bool, map(MULTIPLIES.match, loop)))
            ]
            assert loops, f"{name}: no loop that multiplies"
            whole = False
            for loop in loops:
                products = sum(bool(MULTIPLIES.match(line)) for line in loop)
                assert any(products % size == 0 for size in sizes), f"{name}: {products} products in a loop"
                whole |= products % max(sizes) == 0
                assert not [line for line in instructions(loop) if STACK.search(line)], f"{name}: the stack in a loop"
            assert whole, f"{name}: no loop over all pixels"
