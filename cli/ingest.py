"""`stscale ingest`."""

from pathlib import Path
from typing import Annotated

import typer

from stscale.errors import InputError
from stscale.inputs import matched

from .options import Debug, Layer, Quiet


def ingest(
    sources: Annotated[list[Path], typer.Argument(help="Slices: .h5ad, .zarr, 10x Visium folders, SpatialData.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the slice stores.")],
    tile: Annotated[int | None, typer.Option("--tile", help="Spots per tile.", min=1)] = None,
    chunk: Annotated[int | None, typer.Option("--chunk", help="Rows written at a time; whole tiles.", min=1)] = None,
    layer: Layer = None,
    as_given: Annotated[
        bool, typer.Option("--as-given", help="Keep normalised values; else they become counts again where they can.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace stores that are already there.")] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Turn slices into slice stores: checked, in Hilbert order, readable chunk by chunk (and by anndata)."""
    from stscale.config import Ingest
    from stscale.options import build
    from stscale.slices import ingest as ingest_slice
    from stscale.slices.sources import slice_name

    sources = matched(sources)
    given = {"tile": tile, "chunk": chunk, "layer": layer, "recover": False if as_given else None}
    config = build(Ingest, {k: v for k, v in given.items() if v is not None}, "ingest")
    targets = [out / f"{slice_name(s)}.zarr" for s in sources]
    for source, target in zip(sources, targets, strict=True):
        if targets.count(target) > 1:
            raise InputError(f"two sources are called {target.stem!r}; rename one")
        if target.exists() and not overwrite:
            raise InputError(f"{target} exists; --overwrite replaces it")
        if not source.exists():
            raise InputError(f"{source} does not exist")
    for source, target in zip(sources, targets, strict=True):
        store = ingest_slice(source, target, config=config)
        if not quiet:
            typer.echo(f"{target}: {store.n} spots × {store.n_genes} genes, {store.kind}")
