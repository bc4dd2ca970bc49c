"""`stscale report`."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Debug, Quiet, Threads


def report(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
    threads: Threads = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Draw the report of a finished run anew: report.html and figures/*.png, from the run folder alone."""
    from stscale.report import write_report
    from stscale.threads import set_threads

    set_threads(threads or 0)
    page = write_report(run)
    if not quiet:
        typer.echo(page)
