"""Bands: every row is computed before it is read, once per part, and line buffers hold what is still needed."""

from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.runtime.bands import bands, parts, rows_read
from prunus.runtime.program import Op

LAYERS = st.lists(
    st.tuples(st.sampled_from([1, 2, 3, 5]), st.sampled_from([1, 1, 2]), st.sampled_from([1, 1, 2])),
    min_size=1,
    max_size=5,
)


def chain(layers: list[tuple[int, int, int]], height: int) -> tuple[list[Op], dict[str, int]]:
    """Operators in a row, by kernel, stride and dilation, padded by half of the kernel's reach."""
    ops, heights = [], {"t0": height}
    for i, (kernel, stride, dilation) in enumerate(layers):
        reach = (kernel - 1) * dilation + 1
        pad = reach // 2
        out = (heights[f"t{i}"] + 2 * pad - reach) // stride + 1
        attrs = {"kernel": (kernel, 1), "strides": (stride, 1), "dilations": (dilation, 1), "pads": (pad, 0, pad, 0)}
        ops.append(Op("conv", f"op{i}", (f"t{i}",), (f"t{i + 1}",), attrs))
        heights[f"t{i + 1}"] = out
    return ops, heights


@settings(deadline=None)
@given(LAYERS, st.integers(24, 60), st.integers(1, 9), st.integers(1, 3), st.data())
def test_rows_are_there_when_they_are_read(
    layers: list[tuple[int, int, int]], height: int, rows: int, n_parts: int, data: st.DataObject
) -> None:
    ops, heights = chain(layers, height)
    if min(heights.values()) < 1:
        return
    for i in range(1, len(ops)):  # residuals, where they fit
        same = [f"t{j}" for j in range(1, i + 1) if heights[f"t{j}"] == heights[f"t{i + 1}"]]
        if same and data.draw(st.booleans()):
            ops[i] = Op("conv", ops[i].name, (f"t{i}", data.draw(st.sampled_from(same))), ops[i].outputs, ops[i].attrs)
    out, inside = ops[-1].outputs[0], {op.outputs[0] for op in ops[:-1]}
    written: list[int] = []
    for part in parts(heights[out], n_parts, rows):
        held: dict[str, set[int]] = {name: set() for name in inside}
        last: dict[str, int] = {}
        for band in bands(ops, heights, rows, part):
            assert band.before == last
            for name, base in band.base.items():  # rows below are given up
                held[name] = {row for row in held[name] if row >= base}
            for work in band.works:
                op = ops[work.op]
                read = range(*rows_read(op, work.rows, heights[op.inputs[0]]))
                for name, needed in ((op.inputs[0], read), *((name, range(*work.rows)) for name in op.inputs[1:])):
                    if name in inside:
                        assert set(needed) <= held[name], f"{op.name} reads rows of {name} that aren't there"
                made = set(range(*work.rows))
                assert made
                if work.op == len(ops) - 1:
                    written += sorted(made)
                else:
                    assert not made & held[op.outputs[0]], "a row is computed once"
                    assert min(made) >= band.base[op.outputs[0]], "and has a place in the line buffer"
                    held[op.outputs[0]] |= made
            last = dict(band.after)
            for name in inside:
                assert max(held[name], default=-1) < band.after[name] <= heights[name]
    assert written == list(range(heights[out]))


def test_parts_are_whole_bands() -> None:
    assert parts(56, 2, 8) == [(0, 24), (24, 56)]
    assert parts(7, 4, 4) == [(0, 4), (4, 7)]
    assert parts(5, 2, 10) == [(0, 5)]
