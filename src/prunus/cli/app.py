"""The list of verbs, and the command line made of it. A new verb is a file here and a row there."""

from importlib import import_module

import typer

VERBS = (
    "demo",
    "doctor",
    "prune",
    "train",
    "search",
    "explore",
    "map",
    "compile",
    "run",
    "benchmark",
    "profile",
    "audit",
    "fingerprint",
)


def build_app() -> typer.Typer:
    """The command line: each verb is the function of its name in the module of its name, or a Typer of such functions.

    That module's EXAMPLE is a command line that works, given files of the names it uses.
    """
    app = typer.Typer(
        name="prunus",
        help="Prune trained networks and compile them into fast native CPU code.",
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback(invoke_without_command=True)
    def root(
        version: bool = typer.Option(False, "--version", help="Print the version and exit."),
    ) -> None:
        if version:
            from prunus import __version__

            print(f"prunus {__version__}")
            raise typer.Exit

    for verb in VERBS:
        module = import_module(f"prunus.cli.{verb}")
        made, epilog = getattr(module, verb), f"Example: {module.EXAMPLE}"
        if isinstance(made, typer.Typer):
            app.add_typer(made, name=verb, epilog=epilog)
        else:
            app.command(verb, epilog=epilog)(made)
    return app
