"""`python -m wsipipe`: the commands, and how errors end a run."""

import logging
import sys
from typing import Annotated

import typer

from wsipipe import __version__
from wsipipe.cli import cohort, demo, doctor, export, models, plan, run, verify, view
from wsipipe.errors import UsageError, WsipipeError

app = typer.Typer(
    name="wsipipe",
    help="Whole-slide H&E images to every nucleus in them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("plan")(plan.plan)
app.command("cohort")(cohort.cohort)
app.command("verify")(verify.verify)
app.command("export")(export.export)
app.command("view")(view.view)
app.command("demo")(demo.demo)
app.command("models")(models.models)
app.command("doctor")(doctor.doctor)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"wsipipe {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Whole-slide H&E images to every nucleus in them."""


def main() -> None:
    """Run the command line; errors become one line and an exit code: 1 failed, 2 wrong usage."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger().setLevel(logging.DEBUG if {"-v", "--verbose"} & set(sys.argv) else logging.WARNING)
    for noisy in ("numba", "asyncio", "matplotlib", "PIL", "fsspec", "filelock"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        app()
    except (WsipipeError, OSError, MemoryError) as error:
        from wsipipe.faults import explain

        logging.getLogger(__name__).debug("where it happened:", exc_info=True)
        print(f"wsipipe: {explain(error)}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt:
        print("wsipipe: stopped; run the same command again to continue", file=sys.stderr)
        sys.exit(130)
