"""`stscale map`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stscale.inputs import matched

from .options import Debug, Progress, Progressing, Quiet, Seed, Split, Threads

if TYPE_CHECKING:
    from stscale.tasks import MapResult


def map_(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
    slices: Annotated[list[Path], typer.Argument(help="New slices: .zarr, .h5ad, 10x Visium folders, SpatialData.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of mapped.zarr and mapped.json.")],
    split: Split = None,
    restat: Annotated[
        bool, typer.Option("--restat/--frozen", help="Measure the network's normalisation anew on each slice.")
    ] = False,
    seed: Seed = None,
    threads: Threads = None,
    progress: Progressing = Progress.auto,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Embed and label new slices with the model of a finished run, without training.

    Writes mapped.zarr (obsm X_stscale; obs stscale_domain, stscale_confidence, stscale_slice) and mapped.json: for
    each slice whether it is like those trained on (mapped) or not (novel: integrate it with the others instead).
    """
    from stscale.tasks import map_slices

    from .progress import watching

    with watching(progress, quiet=quiet) as display:
        result = map_slices(
            run,
            matched(slices),
            out=out,
            split=split,
            restat=restat,
            seed=seed or 0,
            threads=threads or 0,
            observer=display,
        )
    display.done(
        _said(result),
        run=result.path,
        slices=[found.name for found in result.slices],
        verdicts=[found.verdict.verdict for found in result.slices],
    )


def _said(result: "MapResult") -> list[str]:
    lines = []
    for found in result.slices:
        v = found.verdict
        left = f" ({found.left_out} without counts left out)" if found.left_out else ""
        lines.append(
            f"{found.name}: {v.verdict}; {found.spots} spots{left}, {found.genes_shared} of {found.genes_run} genes, "
            f"{len(found.domains)} domains, median confidence {v.confidence:.2f}, {v.outside:.0%} outside, "
            f"{found.seconds:.1f} s"
        )
        if found.moved:
            lines.append(
                "  it lies beside the run's kinds of tissue, as the slices of the run do, not around its own mean"
            )
        for reason in v.reasons:
            lines.append(f"  {reason}; integrate it with the other slices instead")
    return [*lines, str(result.path / "mapped.zarr"), str(result.path / "mapped.json")]
