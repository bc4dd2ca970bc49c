"""`stscale inspect`."""

from pathlib import Path
from typing import Annotated

import typer

from stscale.errors import InputError

from .options import Debug


def inspect(
    paths: Annotated[list[Path], typer.Argument(help="Slices in any known format, or run folders.")],
    debug: Debug = False,
) -> None:
    """Say what slices and runs hold, from their headers."""
    for path in paths:
        if not path.exists():
            raise InputError(f"{path} does not exist")
        typer.echo("\n".join(_run(path) if (path / "manifest.json").exists() else _slice(path)))


def _slice(path: Path) -> list[str]:
    from stscale.slices import SliceStore, is_store, open_source

    if is_store(path):
        s = SliceStore.open(path)
        return [
            f"{path}: slice store {s.name!r}",
            f"  {s.n} spots × {s.n_genes} genes, {s.nnz} values stored ({s.kind}, largest {s.max_value:g})",
            f"  tile {s.tile}, chunk {s.chunk}, unit {s.unit or 'not stated'}, from {s.source}",
            f"  annotations: {', '.join(s.obs().columns) or 'none'}",
        ]
    source = open_source(path)
    return [
        f"{path}: {source.n} spots × {len(source.genes)} genes, not yet a slice store",
        f"  unit {source.unit or 'not stated'}, annotations: {', '.join(source.obs.columns) or 'none'}",
    ]


def _run(path: Path) -> list[str]:
    from stscale.rundir import read_manifest

    manifest = read_manifest(path)
    held = sum(len(entry.get("slices", [entry])) for entry in manifest.get("inputs", []))
    lines = [f"{path}: run of stscale {manifest['stscale']}, {held} slices"]
    for name, stage in manifest["stages"].items():
        extra = {k: v for k, v in stage.items() if isinstance(v, int | float) and k not in ("seconds", "peak_mb")}
        said = ", ".join(f"{k} {v:g}" for k, v in extra.items())
        lines.append(f"  {name:<9} {stage['seconds']:8.1f} s {stage['peak_mb']:7.0f} MiB  {said}")
    return lines
