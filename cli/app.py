"""The application: its commands, and how errors leave it."""

import os
import sys

import typer

from stscale.errors import StscaleError

from . import align, config, impute, ingest, inspect, integrate, map, metrics, plan, simulate, trajectory, transfer

app = typer.Typer(
    name="stscale",
    help="Integrate and align many slices of spatial-transcriptomics tissue, at any size.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(integrate.integrate)
app.command()(align.align)
app.command("map")(map.map_)
app.command()(impute.impute)
app.command()(trajectory.trajectory)
app.command()(transfer.transfer)
app.command()(plan.plan)
app.command()(ingest.ingest)
app.command()(simulate.simulate)
app.command()(metrics.metrics)
app.command()(inspect.inspect)
app.command()(config.config)


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
    if version:
        from stscale import __version__

        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the application; bad input is one line on stderr and exit code 2.

    Other failures are one line and exit code 1; `--debug` after the command shows the traceback of either.
    """
    debug = "--debug" in sys.argv
    try:
        app()
    except StscaleError as error:
        _stop(error, str(error), 2, debug)
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command goes on from here", err=True)
        sys.exit(130)
    except Exception as error:
        _stop(error, f"{type(error).__name__}: {error} (this is a bug; --debug shows where)", 1, debug)


def _stop(error: Exception, text: str, code: int, debug: bool) -> None:
    if debug:
        raise error
    if os.environ.get("RANK", "0") != "0":
        sys.exit(code)  # the first rank has said it
    typer.echo("error: " + " ".join(text.split()), err=True)
    sys.exit(code)
