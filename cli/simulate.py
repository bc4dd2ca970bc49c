"""`stscale simulate`."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Debug, Quiet, Setting, Threads


def simulate(
    out: Annotated[Path, typer.Argument(help="Folder for slice-00.zarr … and truth.json.")],
    slices: Annotated[int, typer.Option("--slices", help="Number of slices.")] = 4,
    spots: Annotated[int, typer.Option("--spots", help="Spots per slice.")] = 2000,
    genes: Annotated[int, typer.Option("--genes", help="Genes.")] = 500,
    seed: Annotated[int, typer.Option("--seed", help="Seed of tissue and counts.", min=0)] = 0,
    settings: Setting = None,
    threads: Threads = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write simulated slices with known domains, batch effects and transforms.

    Tissue and noise are options of [simulate]: --set simulate.kind=layers, --set simulate.batch_effect=0.5, …
    (`stscale config --simulate` lists them). Counts are streamed to disk.
    """
    from stscale.config import Simulate
    from stscale.errors import InputError
    from stscale.options import build
    from stscale.slices.simulate import simulate as simulate_slices
    from stscale.threads import available_cores

    from .options import parsed_setting

    values = {}
    for text in settings or []:
        for section, pairs in parsed_setting(text).items():
            if section != "simulate":
                raise InputError(f"--set {text!r}: only [simulate] options apply here, as simulate.name=value")
            values.update(pairs)
    paths = simulate_slices(
        out,
        slices=slices,
        spots=spots,
        genes=genes,
        seed=seed,
        config=build(Simulate, values, "simulate"),
        workers=threads or available_cores(),
    )
    if not quiet:
        typer.echo(
            f"{len(paths)} slices × {spots} spots × {genes} genes in {out}; the truth is in {out / 'truth.json'}"
        )
