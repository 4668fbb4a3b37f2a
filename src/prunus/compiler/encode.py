"""A layer's matrix as the row groups that a choice asks for."""

from collections.abc import Sequence

import numpy as np

from prunus.compiler.choice import Choice, Values
from prunus.sparsity.encoding import Encoding, encode_blocks, encode_rows


def encode(matrix: Values, groups: int, choice: Choice, taps: int = 1) -> Encoding:
    """The row groups of a layer's matrix [m, k], `taps` columns per channel; of "lanes" that of the matrix
    with the columns of a tap side by side.

    With `groups` > 1 (grouped convolution) the matrix is [m, k / groups]: rows of group g see only columns
    [g * k / groups, (g + 1) * k / groups).
    """
    m, k = matrix.shape
    if choice.encoding == "lanes":
        order = np.arange(k).reshape(-1, taps).T.ravel()
        fill = min((h for h in choice.heights if h > 1), default=1)
        fill = 2 * fill if 2 * fill in choice.heights else fill  # a vector, where half of one is the least
        return encode_rows(matrix[:, order], choice.heights, choice.section, union=choice.union, fill=fill)
    if groups == 1:
        return _encode(matrix, choice)
    parts = [_encode(part, choice) for part in np.split(matrix, groups)]
    return join(parts, [i * (m // groups) for i in range(groups)], [i * k for i in range(groups)], choice.section)


def _encode(matrix: Values, choice: Choice) -> Encoding:
    if choice.encoding == "blocks":
        return encode_blocks(matrix, choice.block, choice.heights, choice.section, columns_outer=choice.columns_outer)
    return encode_rows(
        matrix, choice.heights, choice.section, chunk=choice.chunk, union=choice.union, apart=choice.apart
    )


def join(parts: Sequence[Encoding], rows: Sequence[int], columns: Sequence[int], section_values: int) -> Encoding:
    """Encodings side by side on the diagonal: part i starts at rows[i], columns[i]. Small sections are merged."""
    shape = (sum(part.shape[0] for part in parts), sum(part.shape[1] for part in parts))
    sections, held = [0], 0
    first = np.cumsum([0, *(len(part.heights) for part in parts)])
    for i, part in enumerate(parts):
        held += part.kept
        if held >= section_values or i == len(parts) - 1:
            sections.append(int(first[i + 1]))
            held = 0
    chunked = any(len(part.parts) > len(part.sections) for part in parts)
    parts_of = np.unique(np.concatenate([part.parts + at for part, at in zip(parts, first, strict=False)]))
    parts_of = parts_of if chunked else np.array(sections)
    return Encoding(
        shape,
        np.concatenate([part.heights for part in parts]),
        np.concatenate([part.counts for part in parts]),
        np.concatenate([part.flags for part in parts]),
        np.concatenate([part.rows + at for part, at in zip(parts, rows, strict=True)]),
        np.concatenate([part.columns + at for part, at in zip(parts, columns, strict=True)]),
        np.concatenate([part.values for part in parts]),
        np.array(parts_of, np.int64),
        np.array(sections, np.int64),
    )
