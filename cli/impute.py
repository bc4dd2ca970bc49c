"""`stscale impute`."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Debug, Quiet, Threads


def impute(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
    genes: Annotated[str, typer.Option("--genes", help="Genes that the run kept, as A,B.")],
    by: Annotated[
        str, typer.Option("--by", help="regression on the latents, or decoder: the network's own.")
    ] = "regression",
    threads: Threads = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Say how strongly genes are expressed at every spot, as the latents of the run tell.

    Writes RUN/imputed.zarr (log-normalised), also for slices whose panel lacks a gene when the run was integrated
    with --genes union.
    """
    from stscale.tasks import impute as impute_genes

    from .progress import Display

    with Display(quiet=quiet) as display:
        path = impute_genes(run, [g for g in genes.split(",") if g], by=by, threads=threads or 0, observer=display)
    if not quiet:
        typer.echo(path)
