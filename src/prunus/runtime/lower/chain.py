"""Operators depth first: each band of rows goes through all of them while it is in a near cache.

Bands are lowered like whole tensors, with other heights and paddings. Between bands, the rows of a tensor that are
still needed move to the front of its line buffer. Each part has line buffers of its own, so that threads share nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import final

from prunus.runtime.bands import Band, Span, Work, bands, parts, rows_read
from prunus.runtime.layout import LINE, Layout, odd_lines, up
from prunus.runtime.lower.context import Draft, Record, clear_padding, copy
from prunus.runtime.lower.layer import clear_margins
from prunus.runtime.lower.ops import LOWERINGS
from prunus.runtime.program import Chain, Op

Body = list[tuple[Record, int]]  # with the operator that each belongs to
Pads = tuple[int, int, int, int]
Shown = tuple[Layout, tuple[str, int]]  # how rows of a tensor lie, and in what buffer from where on


def lower(draft: Draft, chain: Chain) -> None:
    """Emit the record of a chain. It counts as one step, the last of its operators'."""
    ops = draft.program.ops[chain.first : chain.last + 1]
    draft.step = chain.last
    out = draft.layout(ops[-1].outputs[0])
    if _fills_rows(ops[-1]):
        clear_margins(draft, ops[-1])
    else:
        clear_padding(draft, ops[-1].outputs[0])
    n, height = out.shape[0], out.shape[2]
    if n >= chain.parts:  # whole images for each thread
        shares = [[(image, (0, height)) for image in range(i, n, chain.parts)] for i in range(chain.parts)]
    else:
        shares = [[(image, part) for image in range(n)] for part in parts(height, chain.parts, chain.rows)]
    bodies = [_Part(draft, chain, ops, number, dict(draft.layouts)).emit(share) for number, share in enumerate(shares)]
    draft.emit("chain", bodies=bodies)


def _fills_rows(op: Op) -> bool:
    """The operator writes whole vectors: zeros into the padding behind each row, and some behind the last one."""
    return op.kind == "conv" and op.attrs["choice"]["encoding"] != "depthwise"


@final
@dataclass
class _Part:
    """The records of one part in the making. `whole`: how tensors lie outside of the chain; `lines`: the line buffers
    of those inside."""

    draft: Draft
    chain: Chain
    ops: Sequence[Op]
    number: int
    whole: Mapping[str, Layout]
    lines: dict[str, Layout] = field(default_factory=dict)
    body: Body = field(default_factory=list)

    def emit(self, share: Sequence[tuple[int, Span]]) -> Body:
        """The bands of some rows of some images, one after the other."""
        heights = {name: self.whole[name].shape[2] for op in self.ops for name in (*op.inputs, *op.outputs)}
        planned = [(image, rows, list(bands(self.ops, heights, self.chain.rows, rows))) for image, rows in share]
        for name in (op.outputs[0] for op in self.ops[:-1]):
            self._make_lines(name, max(band.after[name] - band.base[name] for *_, some in planned for band in some))
        for image, rows, some in planned:
            base: Mapping[str, int] = {}
            for band in some:
                self._move(band, base)
                base = band.base
                for work in band.works:
                    self._work(work, base, image, cut=band is some[-1] and rows[1] < heights[self.ops[-1].outputs[0]])
        return self.body

    def _make_lines(self, name: str, capacity: int) -> None:
        """The line buffer of a tensor inside the chain, and the record that clears it: its padding stays as it is."""
        whole, draft = self.whole[name], self.draft
        lead = up(whole.front, LINE)
        plane = odd_lines(lead + capacity * whole.pitch + whole.tail + LINE)
        size = plane * whole.shape[1]
        shape = (1, whole.shape[1], capacity, whole.shape[3])
        self.lines[name] = Layout(shape, (size, plane, whole.pitch, 1), lead, size)
        with self._recorded(self.chain.last, {}):
            draft.emit(
                "fill", out=draft.kept(self._buffer(name), size), count=size, value=draft.program.tensors[name].pad
            )

    def _buffer(self, name: str) -> str:
        return f"{name}.lines{self.number}"

    def _move(self, band: Band, before: Mapping[str, int]) -> None:
        """Rows that are still needed go to the front of their line buffers."""
        for name in self.lines:
            rows, down = band.before.get(name, 0) - band.base[name], band.base[name] - before.get(name, 0)
            if name in before and rows > 0 and down > 0:
                lines = self.lines[name]
                start = self.draft.kept(self._buffer(name), lines.size) + lines.first
                whole = self.whole[name]
                tail = whole.tail - (whole.pitch - whole.shape[3]) if band.before[name] == whole.shape[2] else 0
                run = (1, lines.shape[1], 1, rows * lines.pitch + max(tail, 0))
                with self._recorded(self.chain.last, {}):
                    copy(self.draft, start, lines.strides, start + down * lines.pitch, lines.strides, run)

    def _work(self, work: Work, base: Mapping[str, int], image: int, *, cut: bool) -> None:
        """Some rows of an operator's output. `cut`: the part ends with them, and what lies behind is another's."""
        op, rows, draft = self.ops[work.op], work.rows, self.draft
        out, height = op.outputs[0], self.whole[op.inputs[0]].shape[2]
        top, left, _, right = op.attrs["pads"]
        read = rows_read(op, rows, height)
        reach = (op.attrs["kernel"][0] - 1) * op.attrs.get("dilations", (1, 1))[0] + 1
        above = max(top - rows[0] * op.attrs["strides"][0], 0)
        below = max((rows[1] - 1) * op.attrs["strides"][0] - top + reach - height, 0)
        pads = (above, left, below, right)
        inputs = (
            op.inputs[0],
            *(f"{name}.residual" for name in op.inputs[1:]),
        )  # it may be the first one too: other rows
        shown = {out: self._shown(out, rows, base, image), inputs[0]: self._shown(inputs[0], read, base, image, pads)}
        for name, alias in zip(op.inputs[1:], inputs[1:], strict=True):
            shown[alias] = self._shown(name, rows, base, image)
        leaves = work.op == len(self.ops) - 1 and _fills_rows(op)
        aside = cut and leaves  # vectors would reach into another's rows
        if aside:
            target, shown[out] = shown[out], self._aside(out, rows)
        with self._recorded(self.chain.first + work.op, shown):
            LOWERINGS[op.kind](draft, replace(op, inputs=inputs, attrs={**op.attrs, "pads": pads}))
            if out in self.lines and rows[1] == self.whole[out].shape[2]:
                self._clear_tail(out, rows)
            if leaves and rows[1] < self.whole[out].shape[2]:
                self._clear_gap(out)
            if aside:
                source, place = draft.layout(out), draft.at(out)
                draft.layouts[out], draft.views[out] = target
                run = (1, source.shape[1], 1, source.shape[2] * source.pitch)
                copy(draft, draft.at(out), target[0].strides, place, source.strides, run)

    def _shown(self, name: str, rows: Span, base: Mapping[str, int], image: int, pads: Pads = (0, 0, 0, 0)) -> Shown:
        """Some rows of a tensor as if they were all, with zeros around as the padding asks."""
        whole, above, left, below = self.whole[name], pads[0], pads[1], pads[2]
        shape = (1, whole.shape[1], rows[1] - rows[0], whole.shape[3])
        front, tail = above * whole.pitch + left, below * whole.pitch + pads[3]
        if name in self.lines:
            lines = self.lines[name]
            first = lines.first + (rows[0] - base[name]) * lines.pitch
            return Layout(shape, lines.strides, first, lines.size, front, tail), (self._buffer(name), 0)
        first = whole.first + image * whole.batch + rows[0] * whole.pitch
        if not whole.front and not whole.tail:  # there are no zeros
            front = tail = 0
        return Layout(shape, whole.strides, first, whole.size, front, tail), self.draft.views.get(name, (name, 0))

    def _aside(self, name: str, rows: Span) -> Shown:
        """A place for rows of the output that are copied to theirs."""
        whole, buffer = self.whole[name], f"{name}.aside{self.number}"
        n_rows = rows[1] - rows[0]
        plane = odd_lines(n_rows * whole.pitch + LINE)
        size = plane * whole.shape[1]
        self.draft.kept(buffer, size)
        shape = (1, whole.shape[1], n_rows, whole.shape[3])
        return Layout(shape, (size, plane, whole.pitch, 1), 0, size), (buffer, 0)

    def _clear_gap(self, name: str) -> None:
        """Zeros behind the last row of a band, where its last vector doesn't reach as far as the next row."""
        draft, lanes = self.draft, self.draft.program.lanes
        out = draft.layout(name)
        pixels, gap = (out.shape[2] - 1) * out.pitch + out.shape[3], out.pitch - out.shape[3]
        if -pixels % lanes < gap:
            draft.emit(
                "margins", out=draft.at(name), images=1, planes=out.shape[1], plane=out.plane, tail_start=pixels,
                tail=gap, pad=draft.program.tensors[name].pad,
            )  # fmt: skip

    def _clear_tail(self, name: str, rows: Span) -> None:
        """Zeros behind a tensor's last row, where readers take them for padding."""
        draft, whole = self.draft, self.whole[name]
        if whole.tail:
            draft.emit(
                "margins", out=draft.at(name), images=1, planes=whole.shape[1], plane=draft.layout(name).plane,
                tail_start=(rows[1] - rows[0] - 1) * whole.pitch + whole.shape[3], tail=whole.tail,
                pad=draft.program.tensors[name].pad,
            )  # fmt: skip

    @contextmanager
    def _recorded(self, owner: int, shown: Mapping[str, Shown]) -> Iterator[None]:
        """What is emitted meanwhile goes to this body, tensors lying as `shown`; temporaries are the same each time."""
        draft = self.draft
        outside = draft.records, draft.owners, draft.layouts, draft.views, draft.band
        draft.records, draft.owners = [], []
        draft.layouts = {**draft.layouts, **{name: layout for name, (layout, _) in shown.items()}}
        draft.views = {**draft.views, **{name: place for name, (_, place) in shown.items()}}
        draft.band, draft.lent = f"{self.number}.{owner}", 0
        try:
            yield
            self.body += [(record, owner) for record in draft.records]
        finally:
            draft.records, draft.owners, draft.layouts, draft.views, draft.band = outside
