"""Products by spans of columns, exactly: small integers, tails, rows and columns that keep nothing, several images and
threads, input that isn't aligned."""

import numpy as np
import pytest

from prunus.runtime.records import ARENA, CONSTANTS, NOWHERE, PORTS, address, record
from prunus.sparsity.spans import SPAN, Spans, encode_spans
from tests.kernels.runners import InProcess, Runner, this_isa

SIZES = [(1, 1), (16, 128), (17, 129), (5, 40), (128, 300), (131, 127), (300, 513)]


def zeros_of(kind: str, m: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """Small integers, most of them zero."""
    if kind == "nothing":
        return np.zeros((m, k), np.float32)
    values = rng.integers(1, 4, (m, k)) * rng.choice([-1, 1], (m, k))
    if kind == "all":
        return values.astype(np.float32)
    if kind == "any":
        return (values * (rng.random((m, k)) < 0.1)).astype(np.float32)
    kept = np.zeros((m, k), bool)
    if kind == "shared":  # by 20 rows: more than a piece has
        kept = np.repeat(rng.random((-(-m // 20), k)) < 0.3, 20, axis=0)[:m]
        return (values * kept).astype(np.float32)
    for top in range(0, m, 16):
        for left in range(0, k, SPAN):
            block = kept[top : top + 16, left : left + SPAN]
            block |= (rng.random(block.shape[0]) < 0.3)[:, None] & (rng.random(block.shape[1]) < 0.3)[None]
    return (values * kept).astype(np.float32)


def multiply(
    runner: Runner, spans: Spans, x: np.ndarray, m: int, *, shift: int = 0, threads: int = 1,
    bias: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """The product of the record, for each row of x; what lies around x and behind the values would make sums NaN."""
    images, k = x.shape
    arrays = [*spans.arrays().values(), *([] if bias is None else [bias])]
    starts, parts, size = [], [], 0
    for array in arrays:
        n = -(-array.nbytes // 64) * 16
        part = np.full(n * 4, 0xFF, np.uint8)
        part[: array.nbytes] = array.ravel().view(np.uint8)
        starts.append(address(CONSTANTS, size))
        parts.append(part.view(np.float32))
        size += n
    pitch = k + 3
    arena = np.full(shift + images * pitch + SPAN, np.nan, np.float32)
    for image in range(images):
        arena[shift + image * pitch : shift + image * pitch + k] = x[image]
    out = np.full((images, m + 1), 777, np.float32)
    n_sections = len(spans.sections) - 1
    plan = record(
        "spans", images=images, x=address(ARENA, shift), x_batch=pitch, out=address(PORTS, 0), out_batch=m + 1,
        residual=NOWHERE, entries=starts[0], values=starts[1], places=starts[2], sections=starts[3],
        n_sections=n_sections, rows=m, bias=starts[4] if bias is not None else NOWHERE, slope=NOWHERE,
        scale=NOWHERE,
    )  # fmt: skip
    scratch = int(np.diff(spans.sections).max(initial=0)) + 32
    constants = np.concatenate([*parts, np.full(16, np.nan, np.float32)])
    runner.run(np.array(plan, np.int64), np.zeros(16, np.float32), constants, arena, [out], scratch, threads)
    assert (out[:, m] == 777).all(), "nothing is written behind the rows"
    return out[:, :m]


@pytest.mark.parametrize("zeros", ["nothing", "all", "any", "blocks", "shared"])
def test_exactly(runner: Runner, zeros: str) -> None:
    rng = np.random.default_rng(0)
    for m, k in SIZES:
        matrix = zeros_of(zeros, m, k, rng)
        for images, shift, section in ((1, 0, 10**9), (3, 5, 100)):
            x = rng.integers(-3, 4, (images, k)).astype(np.float32)
            bias = rng.integers(-3, 4, m).astype(np.float32)
            spans = encode_spans(matrix, section)
            got = multiply(runner, spans, x, m, shift=shift, bias=bias, threads=1 + (images > 1))
            np.testing.assert_array_equal(got, x @ matrix.T + bias, err_msg=f"{m} x {k}, {images} images")


def test_long_sections() -> None:
    """A row of a section takes two bytes."""
    matrix = np.zeros((70000, 4), np.float32)
    matrix[::7, 1] = 2
    spans = encode_spans(matrix, 10**9)
    assert np.diff(spans.sections).max() < 1 << 16
    runner = InProcess("this CPU", this_isa())
    x = np.array([[3, 5, 7, 9]], np.float32)
    np.testing.assert_array_equal(multiply(runner, spans, x, 70000), x @ matrix.T)


def test_indices_take_little() -> None:
    """At a tenth of the weights, pruned by rows and columns of blocks alike: 41 columns of 5 rows."""
    rng = np.random.default_rng(2)
    matrix = np.zeros((256, 1024), np.float32)
    for top in range(0, 256, 16):
        for left in range(0, 1024, SPAN):
            rows, columns = rng.permutation(16)[:5] + top, rng.permutation(128)[:41] + left
            matrix[np.ix_(rows, columns)] = 1
    spans = encode_spans(matrix, 10**9)
    assert np.count_nonzero(spans.values) == np.count_nonzero(matrix) == spans.values.size - 16
    indices = sum(a.nbytes for name, a in spans.arrays().items() if name != "values")
    assert indices <= 0.1 * spans.values.nbytes


def test_sections_are_as_long_as_fills_lanes() -> None:
    """Blocks of 16 rows have one piece each: 256 rows."""
    rng = np.random.default_rng(3)
    matrix = np.zeros((1040, 256), np.float32)
    for top in range(0, 1024, 16):
        for left in range(0, 256, SPAN):
            matrix[np.ix_(rng.permutation(16)[:5] + top, rng.permutation(128)[:41] + left)] = 1
    spans = encode_spans(matrix, 100)
    np.testing.assert_array_equal(spans.sections, [0, 256, 512, 768, 1024, 1040])
    assert np.count_nonzero(spans.values) == spans.values.size - 16
