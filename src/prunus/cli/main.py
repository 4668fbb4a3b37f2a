"""The entry point: which exit code a verb ends with, and the one line it says when it fails.

Needs no package but numpy's, so that a missing one can be named.
"""

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from types import TracebackType
from typing import NoReturn, final

from prunus.errors import DisagreementError, MissingExtraError, PrunusError, PrunusWarning
from prunus.extras import missing_package

DONE, NO, BAD_INPUT, INTERNAL, INTERRUPTED = 0, 1, 2, 3, 130
REPORT_TO = "the issue tracker of Prunus"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line (`sys.argv` for None) and exit with its code."""
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def run(arguments: list[str]) -> int:
    """Run the command line and return its exit code: 0, 1, 2, 3 or, interrupted, 130."""
    outcome = Outcome(arguments)
    with outcome, warnings.catch_warnings():
        warnings.simplefilter("default", PrunusWarning)
        warnings.showwarning = _show_warning
        outcome.code = _run_verb(arguments)
        if outcome.code == INTERRUPTED:  # typer turns the interrupt into this code
            raise KeyboardInterrupt
    return outcome.code


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Ours as one line; those of the packages below aren't for users."""
    if issubclass(category, PrunusWarning):
        print(f"warning: {one_line(str(message))}", file=sys.stderr)


def _run_verb(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        from prunus import __version__

        print(f"prunus {__version__}")
        return DONE
    try:
        from prunus.cli.app import build_app
    except ModuleNotFoundError as error:
        verb = next((word for word in arguments if not word.startswith("-")), "")
        raise missing_package(f"prunus {verb}".strip(), error) from error
    app = build_app()
    code = app(arguments or ["--help"], prog_name="prunus", standalone_mode=False)
    sys.stdout.flush()
    return int(code or DONE)


@final
class Outcome:
    """Turns whatever ends a verb into an exit code and one line on stderr.

    The one place that takes every error, ours included: a traceback is never what a user sees,
    unless `-v` asks for it.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self.code = DONE
        self.verbose = bool({"-v", "--verbose"} & set(arguments))

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if error is None:
            return True
        closed = isinstance(error, BrokenPipeError)
        if isinstance(error, SystemExit):  # typer's answer to a closed pipe, else help's
            closed = isinstance(error.__context__, BrokenPipeError)
            if not closed:
                return False
        if closed:  # the reader of our output has gone: `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return True
        self.code, line = verdict(error)
        if self.verbose and self.code == INTERNAL:
            traceback.print_exception(kind, error, trace)
        print(line, file=sys.stderr)
        return True


def verdict(error: BaseException) -> tuple[int, str]:
    """Exit code and the line to print for an error."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "interrupted"
    if isinstance(error, ModuleNotFoundError) and not isinstance(error, MissingExtraError):
        error = missing_package("this", error)
    if isinstance(error, DisagreementError):
        return NO, f"error: {one_line(str(error))}"
    if isinstance(error, PrunusError):
        return BAD_INPUT, f"error: {one_line(str(error))}"
    usage = _usage(error)
    if usage is not None:
        return BAD_INPUT, f"error: {one_line(usage)}"
    if isinstance(error, MemoryError):
        return BAD_INPUT, f"error: not enough memory: {one_line(str(error)) or 'for this model'}"
    if isinstance(error, OSError) and error.filename is not None:
        return BAD_INPUT, f"error: {error.filename}: {error.strerror or error}"
    return INTERNAL, (
        f"internal error: {type(error).__name__}: {one_line(str(error))} "
        f"(this is a fault of Prunus: please report it to {REPORT_TO}, with what -v shows)"
    )


def one_line(text: str) -> str:
    """`text` with every run of white space, line ends included, as one space."""
    return " ".join(text.split())


def _usage(error: BaseException) -> str | None:
    """What a usage error says; None for any other error."""
    typer = sys.modules.get("typer")
    if typer is None:
        return None
    if isinstance(error, typer.Abort):
        return "aborted"
    if isinstance(error, typer.TyperException):
        said = getattr(error, "format_message", lambda: str(error))()
        details = getattr(error.__cause__, "errors", None)  # pydantic's, which typer leaves out
        if callable(details) and (found := details()):
            said = f"{said}, found {found[0].get('input')!r}"
        context = getattr(error, "ctx", None)
        return f"{said} (see {context.command_path} --help)" if context is not None else said
    return None
