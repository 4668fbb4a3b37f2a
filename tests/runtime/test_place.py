"""Buffers that live at the same time never share memory."""

from hypothesis import given
from hypothesis import strategies as st

from prunus.runtime.layout import LINE, up
from prunus.runtime.place import Buffer, place


@st.composite
def buffers(draw: st.DrawFn) -> list[Buffer]:
    """Buffers of any sizes, empty ones too, with lifetimes that overlap in every way."""
    made = []
    for i in range(draw(st.integers(0, 12))):
        born = draw(st.integers(0, 8))
        made.append(Buffer(f"b{i}", draw(st.integers(0, 100)), born, draw(st.integers(born, 8))))
    return made


@given(buffers())
def test_no_two_alive_together_overlap(wanted: list[Buffer]) -> None:
    offsets, arena = place(wanted)
    assert set(offsets) == {buffer.name for buffer in wanted}
    for i, a in enumerate(wanted):
        assert offsets[a.name] % LINE == 0
        assert 0 <= offsets[a.name] <= arena - a.size
        for b in wanted[:i]:
            apart_in_time = a.dies < b.born or b.dies < a.born
            first, second = sorted((a, b), key=lambda buffer: offsets[buffer.name])
            apart_in_space = offsets[first.name] + first.size <= offsets[second.name]
            assert apart_in_time or apart_in_space


@given(buffers())
def test_arena_is_between_the_peak_and_the_sum(wanted: list[Buffer]) -> None:
    """Never more than all buffers side by side, never less than what lives at one time."""
    sizes = {buffer.name: up(max(buffer.size, 1), LINE) for buffer in wanted}
    peak = max((sum(sizes[b.name] for b in wanted if b.born <= step <= b.dies) for step in range(9)), default=0)
    assert peak <= place(wanted)[1] <= sum(sizes.values())


@given(buffers(), st.randoms(use_true_random=False))
def test_order_of_buffers_does_not_matter(wanted: list[Buffer], random: object) -> None:
    shuffled = list(wanted)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert place(shuffled) == place(wanted)


def test_memory_is_used_again() -> None:
    """A chain of equal tensors needs two places, however long it is."""
    chain = [Buffer(f"t{i}", 64, i, i + 1) for i in range(10)]
    assert place(chain)[1] == 128


def test_born_at_the_step_another_dies_is_alive_together() -> None:
    """A step reads one while it writes the other."""
    offsets, arena = place([Buffer("in", 16, 0, 1), Buffer("out", 16, 1, 2)])
    assert offsets["in"] != offsets["out"]
    assert arena == 32


def test_nothing_to_place() -> None:
    assert place([]) == ({}, 0)
