"""`stscale transfer`."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Debug, Quiet, Threads


def transfer(
    run: Annotated[Path, typer.Argument(help="An aligned run folder.")],
    labels: Annotated[list[str] | None, typer.Option("--labels", help="obs column to carry over; repeatable.")] = None,
    genes: Annotated[str | None, typer.Option("--genes", help="Genes to carry over, as A,B.")] = None,
    threads: Threads = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Carry labels or expression between slices through the correspondences of an aligned run.

    Writes obs stscale_transfer_COLUMN (and its probability) into integrated.zarr, and RUN/transfer-genes.zarr; what an
    earlier transfer left is replaced.
    """
    from stscale.tasks import transfer as carry_over

    from .progress import Display

    with Display(quiet=quiet) as display:
        path = carry_over(
            run,
            labels=labels or [],
            genes=[g for g in (genes or "").split(",") if g],
            threads=threads or 0,
            observer=display,
        )
    if not quiet:
        typer.echo(path)
        if genes:
            typer.echo(run / "transfer-genes.zarr")
