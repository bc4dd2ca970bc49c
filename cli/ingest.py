"""`stscale ingest`."""

from pathlib import Path
from typing import Annotated

import typer

from stscale.errors import InputError
from stscale.inputs import matched

from .options import Coordinates, Debug, Layer, Quiet, Split


def ingest(
    sources: Annotated[list[Path], typer.Argument(help="Slices: .h5ad, .zarr, 10x Visium folders, SpatialData.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the slice stores.")],
    tile: Annotated[int | None, typer.Option("--tile", help="Spots per tile.", min=1)] = None,
    chunk: Annotated[int | None, typer.Option("--chunk", help="Rows written at a time; whole tiles.", min=1)] = None,
    split: Split = None,
    coordinates: Coordinates = None,
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
    from stscale.slices import SliceStore
    from stscale.slices.ingest import bring
    from stscale.slices.split import SUFFIX, slice_names

    sources = matched(sources)
    given = {"tile": tile, "chunk": chunk, "coordinates": coordinates, "split": split, "layer": layer}
    given["recover"] = False if as_given else None
    config = build(Ingest, {k: v for k, v in given.items() if v is not None}, "ingest")
    for source in sources:
        if not source.exists():
            raise InputError(f"{source} does not exist")
    names = slice_names(sources, config)
    held = [tuple(out / f"{name}{SUFFIX}" for name in own) for own in names]
    targets = [target for own in held for target in own]
    for target in targets:
        if targets.count(target) > 1:
            raise InputError(f"two sources are called {target.stem!r}; rename one")
        if target.exists() and not overwrite:
            raise InputError(f"{target} exists; --overwrite replaces it")
    for source, own in zip(sources, held, strict=True):
        for store in map(SliceStore.open, bring(config, (source, own))):
            if not quiet:
                typer.echo(f"{store.path}: {store.n} spots × {store.n_genes} genes, {store.kind}")
