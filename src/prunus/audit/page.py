"""The audit as one self-contained page: verdict, curves, tables, pictures."""

from collections.abc import Sequence
from html import escape

from prunus.audit.audit import Evidence
from prunus.audit.pictures import data_url, is_picture, perturbation_url
from prunus.audit.report import ModelReport, Report

COLOURS = ("#1b6ca8", "#c8553d", "#3a7d44", "#7b4b94", "#a67c00", "#4d4d4d", "#00838f", "#ad1457")
SHOWN = 6  # fooled images of a model
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1d2733;max-width:72rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.15rem;margin-top:2rem}
table{border-collapse:collapse}.wide{overflow-x:auto;margin:.6rem 0}
td,th{padding:.25rem .55rem;text-align:right;border-bottom:1px solid #dde3ea}
td:first-child,th:first-child{text-align:left}th{font-weight:600;background:#f4f6f8}
.verdict{padding:.6rem 1rem;border-radius:.4rem;font-weight:600;margin:1rem 0}
.ok{background:#e3f2e6;color:#1e5b2a}.bad{background:#fbe4e0;color:#8c2415}.plain{background:#eef2f6}
.note{color:#5b6b7b}figure{display:inline-block;margin:0 .8rem .8rem 0;text-align:center;vertical-align:top}
figure img{width:112px;height:112px;image-rendering:pixelated;border:1px solid #ccd4dd;display:block}
figcaption{font-size:.8rem;color:#41505f;max-width:112px}.pair{display:inline-flex;gap:4px}
details{margin:.4rem 0}
"""


def page(report: Report, evidence: Evidence, bgr: bool = False) -> str:
    """The HTML; opens without a network. bgr: channels of images are blue first."""
    parts = [
        f"<h1>Universal perturbations: {escape(report.data)}</h1>", _about(report), _verdict(report),
        "<h2>Success against size</h2>", _plot(report),
        "<p class=note>Share of images that a model answers rightly when clean, and wrongly with one perturbation "
        "added to all of them; bars are 95 % intervals.</p>" if report.target is None else
        f"<p class=note>Share of images that one perturbation turns into class {report.target}; bars are 95 % "
        "intervals.</p>",
        "<h2>Models</h2>", _models(report), _notes(report),
        "<h2>Transfer</h2><p class=note>Success at eps of the perturbation made on the model of a row against the "
        "model of a column.</p>", _transfer(report),
        *(_pictures(report, model, evidence, bgr) for model in report.models),
        "<h2>By class</h2>", *(_classes(model) for model in report.models),
    ]  # fmt: skip
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>Prunus audit: {escape(report.data)}</title><style>{STYLE}</style>" + "\n".join(parts) + "\n</html>\n"
    )


def _about(report: Report) -> str:
    return (
        f"<p class=note>{escape(report.norm)} ball, eps {report.eps:.4g}, inputs kept in {report.low:g} to "
        f"{report.high:g}; fitted on {report.n_fit} images, chosen on {report.n_choose}, judged on {report.n_judge} "
        f"others; {report.seconds:.0f} s</p>"
    )


def _verdict(report: Report) -> str:
    if report.failure:
        return f"<p class='verdict bad'>Ended early: {escape(report.failure)}</p>"
    if report.gate is None:
        return "<p class='verdict plain'>No gate was set.</p>"
    over = [model.name for model in report.models if model.passes is False]
    if over:
        said = f"Over the gate of {report.gate:.0%} at eps {report.eps:.4g}: {escape(', '.join(over))}"
        return f"<p class='verdict bad'>{said}</p>"
    return f"<p class='verdict ok'>All models are within the gate of {report.gate:.0%} at eps {report.eps:.4g}.</p>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f"<th>{escape(h)}</th>" for h in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in rows)
    return f"<div class=wide><table><tr>{cells}</tr>{body}</table></div>"


def _models(report: Report) -> str:
    rows = []
    for model in report.models:
        gap = model.against_first
        rows.append((
            model.name, str(model.accuracy), str(model.at_eps.success),
            "-" if gap is None else f"{gap.share:+.1%} ({gap.low:+.1%}..{gap.high:+.1%})",
            f"{model.at_eps.attack} on {model.at_eps.made_on}", f"{model.floor.share:.1%}", model.how,
            f"{model.images:,}", f"{model.seconds:.1f}",
            {None: "-", True: "within", False: "over"}[model.passes],
        ))  # fmt: skip
    head = ("model", "clean accuracy", "success at eps", "against the first", "strongest", "random signs",
            "attacked by", "answers asked", "s", "gate")  # fmt: skip
    return _table(head, rows)


def _notes(report: Report) -> str:
    return "".join(f"<p class=note>Note: {escape(note)}.</p>" for note in report.notes)


def _transfer(report: Report) -> str:
    names = [model.name for model in report.models]
    rows = [(name, *(f"{share:.1%}" for share in row)) for name, row in zip(names, report.transfer, strict=True)]
    return _table(("made on", *names), rows)


def _classes(model: ModelReport) -> str:
    rows = [(row.name, str(row.success.n), f"{row.success.share:.1%}", row.becomes) for row in model.classes]
    shown = _table(("class", "images", "fooled", "mostly into"), rows)
    return f"<details open><summary>{escape(model.name)}</summary>{shown}</details>"


def _pictures(report: Report, model: ModelReport, evidence: Evidence, bgr: bool) -> str:
    if not is_picture(tuple(evidence.judge.x.shape[1:])):
        return ""
    delta, (clean, fooled) = evidence.strongest[model.name], evidence.answers[model.name]
    y, names, ball = evidence.judge.y, evidence.names, evidence.ball
    moved = ball.add(evidence.judge.x[None], delta[None])[0]
    low, high = min(report.low, float(evidence.judge.x.min())), max(report.high, float(evidence.judge.x.max()))
    hit = (clean == y) & (fooled != y if report.target is None else fooled == report.target)
    found = [f"<h2>{escape(model.name)}: the perturbation, and what it does</h2>",
             f"<figure><img alt=perturbation src='{perturbation_url(delta, bgr)}'><figcaption>perturbation, strongest "
             "shown black and white</figcaption></figure>"]  # fmt: skip
    chosen = hit.nonzero()[:, 0]
    for i in chosen[:: max(1, len(chosen) // SHOWN)][:SHOWN].tolist():
        images = "".join(
            f"<img alt='{word}' src='{data_url(x[i], low, high, bgr)}'>"
            for word, x in (("clean", evidence.judge.x), ("perturbed", moved))
        )
        said = f"{escape(names[int(y[i])])} → {escape(names[int(fooled[i])])}"
        found.append(f"<figure><span class=pair>{images}</span><figcaption>{said}</figcaption></figure>")
    if not len(chosen):
        found.append("<p class=note>No image is fooled.</p>")
    return "".join(found)


def _plot(report: Report) -> str:
    """Success by eps, as SVG."""
    if not report.models:
        return ""
    width, height, left, bottom = 640, 300, 52, 40
    most = max(point.eps for model in report.models for point in model.curve)

    def at(eps: float, share: float) -> tuple[float, float]:
        return left + (width - left - 20) * eps / most, 12 + (height - bottom - 12) * (1 - share)

    parts = [f"<svg viewBox='0 0 {width} {height}' width={width} height={height} role=img "
             "aria-label='success against eps' font-family='system-ui,sans-serif' font-size=12>"]  # fmt: skip
    for share in (0, 0.25, 0.5, 0.75, 1.0):
        x, y = at(0, share)
        parts.append(f"<path d='M{x:.1f} {y:.1f}H{width - 20}' stroke='#e3e8ee'/>")
        parts.append(f"<text x={x - 6:.1f} y={y + 4:.1f} text-anchor=end fill='#5b6b7b'>{share:.0%}</text>")
    for eps in sorted({point.eps for point in report.models[0].curve}):
        x, y = at(eps, 0)
        parts.append(f"<text x={x:.1f} y={y + 18:.1f} text-anchor=middle fill='#5b6b7b'>{eps:.3g}</text>")
    parts.append(f"<text x={width - 20} y={height - 4} text-anchor=end fill='#5b6b7b'>eps</text>")
    x, top = at(report.eps, 1)
    parts.append(f"<path d='M{x:.1f} {top:.1f}V{height - bottom}' stroke='#9aa7b4' stroke-dasharray='4 4'/>")
    if report.gate is not None:
        (_, y) = at(0, report.gate)
        parts.append(f"<path d='M{left} {y:.1f}H{width - 20}' stroke='#8c2415' stroke-dasharray='6 3'/>")
        parts.append(f"<text x={width - 22} y={y - 4:.1f} text-anchor=end fill='#8c2415'>gate {report.gate:.0%}</text>")
    for i, model in enumerate(report.models):
        colour, shift = COLOURS[i % len(COLOURS)], 3 * (i - (len(report.models) - 1) / 2)
        corners = [at(0, 0), *(at(point.eps, point.success.share) for point in model.curve)]
        line = "L".join(f"{x + shift * (n > 0):.1f} {y:.1f}" for n, (x, y) in enumerate(corners))
        parts.append(f"<path d='M{line}' fill=none stroke='{colour}' stroke-width=2 />")
        for point in model.curve:
            x, y = at(point.eps, point.success.share)
            low, high = at(0, point.success.low)[1], at(0, point.success.high)[1]
            parts.append(f"<path d='M{x + shift:.1f} {low:.1f}V{high:.1f}' stroke='{colour}'/>")
            parts.append(f"<circle cx={x + shift:.1f} cy={y:.1f} r=3.5 fill='{colour}'/>")
        parts.append(f"<rect x={left + 10} y={16 + 18 * i} width=12 height=12 fill='{colour}'/>")
        parts.append(f"<text x={left + 28} y={26 + 18 * i} fill='#1d2733'>{escape(model.name)}</text>")
    return "".join(parts) + "</svg>"
