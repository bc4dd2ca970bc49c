"""`stscale export`."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Debug, Quiet


def export(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the new SpatialData folders.")],
    source: Annotated[
        list[Path] | None,
        typer.Option("--source", help="Where a slice is now; one for each, in the run's order."),
    ] = None,
    table: Annotated[str, typer.Option("--table", help="Name of the new table.")] = "stscale",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier export, and names that are taken in the copies.")
    ] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write the results back as SpatialData: a copy of each slice with a new table, in a common coordinate system.

    The table holds domains, embedding and aligned coordinates, and annotates what the slice's own table annotates; of
    an aligned run, images and shapes get a transformation to the coordinate system stscale. Slices that did not come
    from SpatialData become folders with a circle for each spot. Needs the extra stscale[spatialdata].
    """
    from stscale.tasks import export as write_back

    from .progress import Display

    with Display(quiet=quiet) as display:
        path = write_back(run, out=out, sources=source or [], table=table, overwrite=overwrite, observer=display)
    if not quiet:
        typer.echo(path)
