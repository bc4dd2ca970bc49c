"""`stscale trajectory`."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Debug, Quiet, Seed, Threads


def trajectory(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
    root: Annotated[str, typer.Option("--root", help="Domain where pseudotime starts.")],
    seed: Seed = None,
    threads: Threads = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Order all spots by diffusion pseudotime from a root domain.

    Writes obs stscale_pseudotime into integrated.zarr, RUN/trajectory.csv (connectivity of the domains, PAGA) and
    RUN/figures/trajectory.png.
    """
    from stscale.tasks import trajectory as order_spots

    from .progress import Display

    with Display(quiet=quiet) as display:
        path = order_spots(run, root, seed=seed or 0, threads=threads or 0, observer=display)
    if not quiet:
        typer.echo(f"{run / 'integrated.zarr'}\n{path}\n{run / 'figures' / 'trajectory.png'}")
