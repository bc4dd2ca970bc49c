"""The application: its commands, and how errors leave it."""

import os
import sys

import typer

from stscale.stopping import Stopped, heeded
from stscale.verdict import CODES, verdict

from . import (
    align,
    config,
    export,
    impute,
    ingest,
    inspect,
    integrate,
    map,
    metrics,
    plan,
    report,
    serve,
    simulate,
    trajectory,
    transfer,
)

app = typer.Typer(
    name="stscale",
    help="Integrate and align many slices of spatial-transcriptomics tissue, at any size.",
    epilog=CODES,
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
app.command()(export.export)
app.command()(plan.plan)
app.command()(ingest.ingest)
app.command()(simulate.simulate)
app.command()(metrics.metrics)
app.command()(report.report)
app.command()(serve.serve)
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

    Other failures are one line and exit code 1; `--debug` after the command shows the traceback of either. SIGTERM
    and SIGINT end a training after its step with a checkpoint, anything else at once: exit codes 143 and 130.
    """
    debug = "--debug" in sys.argv
    try:
        with heeded():
            app()
    except (Exception, Stopped) as error:
        if debug and not isinstance(error, Stopped):
            raise
        code, text = verdict(error)
        if os.environ.get("RANK", "0") == "0":  # the first rank speaks for all
            typer.echo(text if isinstance(error, Stopped) else f"error: {text}", err=True)
        if isinstance(error, Stopped):
            sys.stdout.flush()
            # threads that still compute are not waited for: what they make is not whole, and no run trusts it
            os._exit(code)
        sys.exit(code)
