"""prunus fingerprint: make examples of an owner's network, commit to them, verify a suspect by them."""

import hashlib
import warnings
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunus.cli.images import parse_scaling
from prunus.cli.main import NO
from prunus.cli.options import Bgr, InputShape, Json, Mean, OnnxModel, Quiet, Std, Threads, Verbose, parse_shapes
from prunus.cli.output import Printer
from prunus.errors import OutputError, PrunusWarning
from prunus.runtime.atomic import check_writable

if TYPE_CHECKING:
    from prunus.fingerprint.answers import Answers
    from prunus.fingerprint.file import NullModel
    from prunus.fingerprint.suspects import Suspect
    from prunus.fingerprint.verdict import Evidence

EXAMPLE = "prunus fingerprint make model.onnx -o owner.fp"
MOST_IMAGES = 1000
fingerprint = typer.Typer(
    help="Prove whose network it is: make examples, commit to them, verify a suspect.", no_args_is_help=True
)
Fp = Annotated[Path, typer.Argument(metavar="FINGERPRINT", help="File of `prunus fingerprint make`.")]
Null = Annotated[
    list[str] | None,
    typer.Option(
        "--null", metavar="MODEL", help="Independent model: ONNX file, artefact or address. The more alike, the better."
    ),
]
Alpha = Annotated[float | None, typer.Option("--alpha", help="Probability of a false claim. Default: 0.001.")]
Engine = Annotated[str, typer.Option("--engine", help="Who runs ONNX files that are asked: onnxruntime or prunus.")]


@fingerprint.command("make", epilog=f"Example: {EXAMPLE} --null other.onnx")
def make(
    model: OnnxModel,
    output: Annotated[Path, typer.Option("-o", "--output", help="Fingerprint to write. It is a secret.")],
    null: Null = None,
    kind: Annotated[
        str, typer.Option("--kind", help="c, rc (under weight noise), ltrc (and high frequencies).")
    ] = "ltrc",
    examples: Annotated[int, typer.Option("--examples", min=1, help="How many, that is, queries to decide.")] = 100,
    eps: Annotated[
        float | None, typer.Option("--eps", help="Distance from the start, as a share of the range.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Of signed gradients.")] = None,
    noise: Annotated[float | None, typer.Option("--noise", help="On weights, in their standard deviations.")] = None,
    draws: Annotated[int | None, typer.Option("--draws", help="Of noise per step.")] = None,
    draw: Annotated[str | None, typer.Option("--draw", help="Of weights: uniform noise, or pruning.")] = None,
    cutoff: Annotated[float | None, typer.Option("--cutoff", help="Of the high-pass filter, 0 to 2.")] = None,
    images: Annotated[
        Path | None,
        typer.Option("--images", help="Start from these, not from noise: npz by input name, npy, folder of images."),
    ] = None,
    bounds: Annotated[
        str | None, typer.Option("--range", metavar="LOW,HIGH", help="Of the values of inputs that are no images.")
    ] = None,
    alpha: Alpha = None,
    part: Annotated[
        int | None, typer.Option("--part", min=1, help="Examples at a time. Default: as many as fit into memory.")
    ] = None,
    mean: Mean = "0",
    std: Std = "255",
    bgr: Bgr = False,
    input_shape: InputShape = None,
    engine: Engine = "onnxruntime",
    threads: Threads = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a fingerprint that is there already.")] = False,
    json: Json = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make examples of a network, and ask independent models how many of them they match by chance."""
    from prunus.fingerprint.begun import keep_begun, read_begun, task_of
    from prunus.fingerprint.file import write_fingerprint
    from prunus.fingerprint.make import ALPHA, granted
    from prunus.fingerprint.make import make as make_fingerprint
    from prunus.fingerprint.method import method_of
    from prunus.fingerprint.owner import owner_of_file, use_threads
    from prunus.fingerprint.statistics import threshold

    printer, shapes = Printer(quiet, json), parse_shapes(input_shape) or {}
    wishes = {"eps": eps, "steps": steps, "noise": noise, "draws": draws, "draw": draw, "cutoff": cutoff}
    method = method_of(kind, **wishes)
    check_writable(output)
    if output.exists() and not force:
        raise OutputError(f"{output}: is there already, and can't be made again; --force replaces it")
    use_threads(threads)
    owner = owner_of_file(model, shapes)
    domain = _domain(owner.shape, mean, std, bgr, bounds)
    pictures = None if images is None else _images(model, images, shapes, parse_scaling(mean, std, bgr))
    others = [_open(text, engine, threads)[0] for text in null or ()]
    task, beside = task_of(owner, domain, method, examples, pictures), Path(f"{output}.part")
    begun = read_begun(beside, task)
    if begun is not None:
        printer.note(f"{beside}: going on with {len(begun.examples)} of {examples} examples")
    with printer.progress("fingerprint") as step:
        made = make_fingerprint(
            owner, domain, method, examples, others, images=pictures, alpha=ALPHA if alpha is None else alpha,
            begun=begun, part=part, keep=lambda now: keep_begun(beside, task, now), report=step,
        )  # fmt: skip
    write_fingerprint(output, made)
    beside.unlink(missing_ok=True)
    _print_null(printer, made.null, examples)
    printer.line(f"{output}: {examples} examples, {made.own} as wanted on {model}; keep it secret, commit to it")
    rate = granted(made)
    needed = threshold(examples, rate, made.alpha)
    if needed is None:
        warnings.warn(
            f"{output}: at a null rate of {rate:.3f} not even {examples} matches of {examples} show anything: take "
            + ("a smaller --eps or more --examples" if made.null else "more --examples, or some --null models"),
            PrunusWarning,
            stacklevel=1,
        )
    enough = needed or "more than all"
    printer.line(f"an independent model is granted {_rate_text(rate, bool(made.null))}: it takes {enough} matches")
    printer.write_json(
        {
            "output": str(output), "examples": examples, "own": made.own, "method": method, "null": made.null,
            "rate": rate, "needed": needed, "root": made.root,
        }
    )  # fmt: skip


@fingerprint.command(
    "commit", epilog="Example: prunus fingerprint commit owner.fp -o owner.commit.json --key owner.pem"
)
def commit(
    source: Fp,
    output: Annotated[Path, typer.Option("-o", "--output", help="Commitment to write, to be published.")],
    key: Annotated[
        Path | None, typer.Option("--key", help="Ed25519 key (PEM) to sign with; made where there is none.")
    ] = None,
    json: Json = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Commit to a fingerprint without showing it: a hash with salt and time, signed."""
    from prunus.fingerprint import commitment
    from prunus.fingerprint.file import read_fingerprint

    printer = Printer(quiet, json)
    if (output.exists() and output.samefile(source)) or (key is not None and output.absolute() == key.absolute()):
        raise OutputError(f"{output}: is the secret itself, expected another file for what is published")
    made = commitment.commit(read_fingerprint(source), key)
    commitment.write_commitment(output, made)
    printer.line(f"{output}: {made.hash} of {made.time}{', signed by ' + made.public_key if made.public_key else ''}")
    printer.line("publish it where others attest its date; the fingerprint stays secret")
    printer.write_json({"output": str(output), **made.__dict__})


@fingerprint.command("verify", epilog="Example: prunus fingerprint verify owner.fp --suspect other.onnx")
def verify(
    source: Fp,
    suspect: Annotated[
        list[str],
        typer.Option(
            "--suspect",
            metavar="MODEL",
            help="ONNX file, artefact or http://HOST:PORT/v2/models/NAME. May be repeated.",
        ),
    ],
    null: Null = None,
    commitment: Annotated[
        Path | None, typer.Option("--commitment", help="What was published before: has to be to this fingerprint.")
    ] = None,
    seen: Annotated[
        datetime | None, typer.Option("--seen", help="When the suspect was first seen: the commitment must be older.")
    ] = None,
    alpha: Alpha = None,
    engine: Engine = "onnxruntime",
    threads: Threads = None,
    json: Json = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Ask suspects all examples. Exit status 0: it is shown that each comes from the owner's network; 1: it isn't."""
    from prunus.fingerprint.answers import ask
    from prunus.fingerprint.commitment import check_commitment, read_commitment
    from prunus.fingerprint.file import NullModel, read_fingerprint
    from prunus.fingerprint.suspects import check_null, match_count
    from prunus.fingerprint.verdict import check_size, judge

    printer, owner, published = Printer(quiet, json), read_fingerprint(source), None
    if commitment is not None:
        published = read_commitment(commitment)
        check_commitment(published, owner, str(commitment), seen)
    elif seen is not None:
        raise typer.BadParameter("--seen needs --commitment")
    if alpha is not None and not 0 < alpha < 1:
        raise typer.BadParameter(f"--alpha {alpha:g}: expected above 0 and below 1")
    check_size(owner, owner.null, alpha, len(suspect))

    opened = {text: _open(text, engine, threads) for text in (*(null or ()), *suspect)}
    for text, (model, _) in opened.items():  # all of them before the first is asked
        model.check(owner.shape, owner.classes)
        if text in (null or ()):
            check_null(model, owner.model)
    found: list[Evidence] = []
    with printer.progress("verify") as step:

        def answers_of(text: str) -> "Answers":
            model, failures = opened[text]
            keep = Path(f"{source}.{hashlib.sha256(text.encode()).hexdigest()[:8]}.answers") if "://" in text else None
            return ask(model, owner, keep, failures, step)

        more = []
        for text in null or ():
            model = opened[text][0]
            more.append(NullModel(model.name, model.digest, match_count(answers_of(text).labels, owner.targets)))
        for text in suspect:
            found.append(judge(owner, opened[text][0].name, answers_of(text), more, alpha, len(suspect)))
    _print_evidence(printer, found, commitment)
    if published is not None:
        signer = f"signed by {published.public_key}" if published.public_key else "not signed: it says not whose it is"
        printer.line(f"{commitment}: of {published.time}, as the owner says; {signer}")
    if owner.origin == "images":
        printer.line("examples start from pictures that the owner chose, not from noise that follows from the secret")
    signed_by = None if published is None else published.public_key
    printer.write_json({"evidence": found, "committed": commitment is not None, "signed_by": signed_by})
    if not all(evidence.shown for evidence in found):
        raise typer.Exit(NO)


def _domain(shape: tuple[int, ...], mean: str, std: str, bgr: bool, bounds: str | None) -> Any:
    """What inputs may be: pixels 0 to 255 as --mean and --std scale them, or what --range says."""
    from prunus.fingerprint.domain import Domain

    if bounds is not None:
        try:
            low, high = (float(text) for text in bounds.split(","))
        except ValueError as error:
            raise typer.BadParameter(f"--range {bounds!r}: expected LOW,HIGH, as -3,3") from error
        return Domain(shape, (low,), (high,))
    if len(shape) != 3:
        raise typer.BadParameter(
            f"inputs of {list(shape)} are no images: --range LOW,HIGH says what their values may be"
        )
    how = parse_scaling(mean, std, bgr)
    n = max(len(how.mean), len(how.std))
    pairs = [(how.mean[i % len(how.mean)], how.std[i % len(how.std)]) for i in range(n)]
    ends = [((0 - m) / s, (255 - m) / s) for m, s in pairs]
    return Domain(shape, tuple(min(end) for end in ends), tuple(max(end) for end in ends))


def _images(model: Path, path: Path, shapes: dict[str, tuple[int, ...]], scaling: Any) -> Any:
    import numpy as np

    from prunus.cli.calibration import calibration_of

    feeds = calibration_of(model, path, shapes, scaling, MOST_IMAGES)
    return np.concatenate([next(iter(feed.values())) for feed in feeds])


def _open(text: str, engine: str, threads: int | None) -> "tuple[Suspect, Any]":
    """A suspect and a function that says how many requests failed."""
    from prunus.fingerprint.endpoint import Endpoint
    from prunus.fingerprint.suspects import suspect_of_file

    if "://" in text:
        endpoint = Endpoint(text)
        return endpoint.suspect(), lambda: endpoint.failures
    return suspect_of_file(Path(text), engine, threads), lambda: 0


def _print_null(printer: Printer, null: "tuple[NullModel, ...]", n: int) -> None:
    if null:
        printer.table(("independent model", "matches"), [(model.name, f"{model.matches} of {n}") for model in null])


def _rate_text(rate: float, measured: bool) -> str:
    if measured:
        return f"a rate of {rate:.3f} (upper 95 % bound of the worst null model)"
    return f"a rate of {rate:.3f} (assumed, for there are no null models: --null gives some)"


def _print_evidence(printer: Printer, found: "list[Evidence]", commitment: Path | None) -> None:
    first = found[0]
    _print_null(printer, first.null, first.n)
    printer.table(
        ("suspect", "matches", "95 % bounds", "needed", "p", "p by rank", "p by spread", "failed queries", "verdict"),
        [
            (
                e.suspect, f"{e.matches} of {e.n}", f"{e.low:.3f} to {e.high:.3f}", str(e.needed), f"{e.p:.2e}",
                f"{e.p_rank:.3f}", "-" if e.p_spread is None else f"{e.p_spread:.2e}", str(e.failures), e.verdict,
            )
            for e in found
        ],
    )  # fmt: skip
    printer.line(f"independent models are granted {_rate_text(first.rate, first.measured)}; alpha {first.alpha:g}")
    if first.measured:
        k = len(first.null)
        printer.line(f"p by rank is {1 / (k + 1):.3f} at best with {k} null models; {99 - k} more would allow 0.01"
                     if k < 99 else f"p by rank is against {k} null models")  # fmt: skip
    if commitment is None:
        printer.line("no --commitment was given: nothing says that the examples are older than the suspect")
