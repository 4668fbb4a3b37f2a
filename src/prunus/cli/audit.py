"""prunus audit: does one small pattern, added to any image, fool these networks, and some more than others?"""

import os
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunus.cli.images import parse_scaling
from prunus.cli.options import Bgr, InputShape, Json, Mean, Quiet, Threads, Verbose, parse_shapes
from prunus.cli.output import Printer
from prunus.runtime.atomic import check_writable, write_atomically

if TYPE_CHECKING:
    from prunus.audit.audit import Evidence
    from prunus.audit.ball import Norm
    from prunus.audit.report import Report

EXAMPLE = "prunus audit model.onnx --data data.npz --eps 8/255 -o audit.html"


def audit(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL...", help="ONNX files and artefacts; the first is what others are compared with."
        ),
    ],
    data: Annotated[
        str,
        typer.Option("--data", help="npz with x and y, folder of images per class, or file.py:function of a dataset."),
    ],
    eps: Annotated[
        str,
        typer.Option("--eps", metavar="NUMBER", help="Size of the perturbation in units of the data: 0.03 or 8/255."),
    ],
    gate: Annotated[
        float | None,
        typer.Option("--gate", min=0, max=1, help="Exit with 1 where a success rate at --eps is above this."),
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="The report, as HTML.")] = Path("audit.html"),
    range: Annotated[
        str, typer.Option("--range", metavar="LO,HI", help="Perturbed inputs stay within, as 0,1 or -1,1.")
    ] = "0,1",
    norm: Annotated[str, typer.Option("--norm", help="linf or l2.")] = "linf",
    target: Annotated[int | None, typer.Option("--target", help="The class that images are to be taken for.")] = None,
    shots: Annotated[int, typer.Option("--shots", min=1, help="Images per class to fit perturbations on.")] = 2,
    fit: Annotated[
        int | None, typer.Option("--fit", min=1, metavar="N", help="In place of --shots: N images of any class.")
    ] = None,
    images: Annotated[
        int | None, typer.Option("--images", min=1, metavar="N", help="Take no more than N of the data.")
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Of each attack.")] = 20,
    attacks: Annotated[
        str, typer.Option("--attacks", help="Some of learned, pgd, sga, sgd-uap, deepfool, random.")
    ] = "learned,pgd,sga",
    black_box: Annotated[
        bool, typer.Option("--black-box", help="Attack ONNX files by queries too, through Prunus's own sessions.")
    ] = False,
    queries: Annotated[
        int, typer.Option("--queries", min=1, help="Answers asked, about, of each model without gradients.")
    ] = 30_000,
    optimiser: Annotated[
        Path | None, typer.Option("--optimiser", help="A learned optimiser other than the one that ships.")
    ] = None,
    perturbations: Annotated[
        Path | None, typer.Option("--perturbations", help="Also write the strongest ones: npz, by model.")
    ] = None,
    resize: Annotated[bool, typer.Option("--resize", help="Make images of another size fit.")] = False,
    mean: Mean = "0",
    std: Annotated[str, typer.Option("--std", "--scale", help="One number, or one per channel.")] = "255",
    bgr: Bgr = False,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**62, help="Of splits and directions.")] = 0,
    input_shape: InputShape = None,
    threads: Threads = None,
    json: Json = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Fit universal perturbations to a few images and say how often they fool each network on the others."""
    from prunus.audit.audit import AuditPlan
    from prunus.audit.audit import audit as run_audit
    from prunus.audit.ball import Ball
    from prunus.audit.data import read_labelled
    from prunus.audit.objective import Objective
    from prunus.audit.optimiser import load
    from prunus.audit.page import page
    from prunus.audit.victims import limit_threads, open_victim

    printer, shapes = Printer(quiet, json), parse_shapes(input_shape)
    low, high = parse_range(range)
    ball = Ball(parse_number("--eps", eps), parse_norm(norm), low, high)
    names = tuple(name.strip() for name in attacks.split(",") if name.strip())
    plan = AuditPlan(
        ball, gate, shots, fit, steps, names, objective=Objective(target=target), queries=queries, seed=seed,
        optimiser=load(optimiser) if optimiser is not None else None,
    )  # fmt: skip
    for path in (output, perturbations, Path(json) if json not in (None, "-") else None):
        if path is not None:
            check_writable(path)
    limit_threads(threads)
    latest: list[dict[str, Any]] = []

    def keep(report: "Report", evidence: "Evidence") -> None:
        write_atomically(output, page(report, evidence, bgr).encode())
        if perturbations is not None:
            write_atomically(perturbations, evidence.archive())
        latest[:] = [{"output": str(output), "passes": report.passes, **vars(report)}]
        if json != "-":
            printer.write_json(latest[0])

    try:
        with printer.progress("audit") as step:
            victims = []
            for model, name in zip(models, distinct(models), strict=True):
                step(f"opening {name}")
                victims.append(open_victim(model, threads, black_box, name, shapes))
            labelled = read_labelled(data, tuple(victims), parse_scaling(mean, std, bgr), resize, images)
            report = run_audit(victims, labelled, plan, keep, step)
    finally:  # stdout gets one report, the last one, also where a model fails or the user stops
        if json == "-" and latest:
            printer.write_json(latest[0])
    _show(printer, report, output)
    if not report.passes:
        raise typer.Exit(1)


def _show(printer: Printer, report: "Report", output: Path) -> None:
    sizes = [f"{point.eps:.4g}" for point in report.models[0].curve]
    printer.table(
        ("model", "accuracy", *sizes, "95 %", "strongest", "by", "answers", "gate"),
        [
            (
                m.name, f"{m.accuracy.share:.3f}", *(f"{point.success.share:.3f}" for point in m.curve),
                f"{m.at_eps.success.low:.3f}..{m.at_eps.success.high:.3f}", f"{m.at_eps.attack} on {m.at_eps.made_on}",
                m.how, str(m.images), {None: "-", True: "within", False: "over"}[m.passes],
            )
            for m in report.models
        ],
        f"success rates by size ({report.norm}) on {report.n_judge} images; 95 % interval at {report.eps:.4g}",
    )  # fmt: skip
    if len(report.models) > 1:
        names = [m.name for m in report.models]
        rows = [(name, *(f"{s:.3f}" for s in row)) for name, row in zip(names, report.transfer, strict=True)]
        printer.table(("made on", *names), rows, f"transfer at {report.eps:.4g}")
    for note in report.notes:
        printer.line(f"note: {note}")
    if report.gate is not None:
        over = [m.name for m in report.models if m.passes is False]
        printer.line(
            f"over the gate of {report.gate:g}: {', '.join(over)}"
            if over
            else f"all within the gate of {report.gate:g}"
        )
    printer.line(f"{output}: written")


def distinct(paths: list[Path]) -> list[str]:
    """Names for files: theirs, and where some have the same one with as many folders as tell them apart."""
    whole = [Path(os.path.abspath(path)).parts for path in paths]
    found = []
    for path, parts in zip(paths, whole, strict=True):
        others = [other for other in whole if other != parts]
        ends = (n for n in range(1, len(parts) + 1) if all(other[-n:] != parts[-n:] for other in others))
        n = next(ends, 1)
        found.append(path.name if n == 1 else "/".join(parts[-n:]))
    return found


def parse_number(option: str, text: str) -> float:
    """0.03 of "0.03", "3/100" and "8/255"'s 0.0314.

    Raises BadParameter: neither.
    """
    try:
        return float(Fraction(text.strip())) if "/" in text else float(text)
    except (ValueError, ArithmeticError) as error:
        raise typer.BadParameter(f"{option} {text!r}: expected a number or a fraction, as 0.03 or 8/255") from error


def parse_range(text: str) -> tuple[float, float]:
    """(0.0, 1.0) of "0,1".

    Raises BadParameter: not two numbers.
    """
    parts = text.split(",")
    if len(parts) != 2:
        raise typer.BadParameter(f"--range {text!r}: expected LO,HI, as 0,1")
    return parse_number("--range", parts[0]), parse_number("--range", parts[1])


def parse_norm(text: str) -> "Norm":
    """One of the norms.

    Raises BadParameter: another one.
    """
    if text not in ("linf", "l2"):
        raise typer.BadParameter(f"--norm {text!r}: expected linf or l2")
    return "linf" if text == "linf" else "l2"
