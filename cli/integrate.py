"""`stscale integrate`."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stscale.inputs import matched

from .align import said
from .options import (
    AlignFirst,
    Coordinates,
    Debug,
    Domains,
    Fractional,
    Layer,
    Lognormalized,
    MaxRam,
    MaxVram,
    MethodName,
    Progress,
    Progressing,
    Quiet,
    Seed,
    Setting,
    Split,
    Threads,
    Vocabulary,
    configured,
    joining,
)

if TYPE_CHECKING:
    from stscale.results import Result

    from .jsonlines import JsonLines
    from .progress import Display


def integrate(
    slices: Annotated[list[Path], typer.Argument(help="Slices: .zarr, .h5ad, 10x Visium folders, SpatialData.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder; an interrupted run goes on there.")],
    domains: Domains = None,
    method: MethodName = None,
    preset: Annotated[str | None, typer.Option("--preset", help="default, or paper: Spotscape as published.")] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="TOML file, see `stscale config`.")] = None,
    settings: Setting = None,
    align: AlignFirst = None,
    split: Split = None,
    coordinates: Coordinates = None,
    layer: Layer = None,
    lognormalized: Lognormalized = None,
    fractional: Fractional = None,
    genes: Vocabulary = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu or cuda.")] = None,
    seed: Seed = None,
    threads: Threads = None,
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", help="Dask scheduler whose workers compute, tcp://host:8786.")
    ] = None,
    nproc: Annotated[
        int, typer.Option("--nproc", help="Processes that train together on this machine, one per GPU.", min=1)
    ] = 1,
    max_ram: MaxRam = None,
    max_vram: MaxVram = None,
    fresh: Annotated[bool, typer.Option("--fresh/--resume", help="Start over, or reuse what is finished.")] = False,
    progress: Progressing = Progress.auto,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Learn one embedding of all slices and find their domains.

    Writes the run folder: integrated.zarr (obsm X_stscale, obs stscale_domain and stscale_slice), report.html,
    manifest.json, events.jsonl, checkpoints. With --align also what `stscale align` writes. The same command again goes
    on where an interrupted one stopped.
    """
    resources = {"threads": threads, "device": device, "scheduler": scheduler, "max_ram": max_ram, "max_vram": max_vram}
    run = configured(
        config,
        preset,
        settings,
        {
            "run": {"method": method, "seed": seed, **resources},
            "domains": {"k": domains},
            "ingest": {"split": split, "coordinates": coordinates, "layer": layer},
            "preprocess": {"lognormalized": lognormalized, "fractional": fractional, "genes": genes},
        },
    )
    run = joining(run, align)
    # only now the heavy imports: a wrong option is answered at once
    from stscale.pipeline import integrate as integrate_slices
    from stscale.training.launch import followers

    from .progress import watching

    rank = int(os.environ.get("RANK", "0"))
    quiet = quiet or rank > 0  # the first rank speaks for all
    paths = matched(slices)
    with followers(nproc, ["-m", "stscale_cli", *sys.argv[1:]]), watching(progress, quiet=quiet) as display:
        result = integrate_slices(paths, out=out, config=run, fresh=fresh, observer=display)
    _tell(result, display, aligned=run.graph.across > 0)


def _tell(result: "Result", display: "Display | JsonLines", *, aligned: bool) -> None:
    left = f" ({result.left_out} without counts left out)" if result.left_out else ""
    sure = "" if result.k_range is None else " (estimated; resampled tissue gives {} to {})".format(*result.k_range)
    found = result.alignment() if aligned else None
    laid = [] if found is None else said(found)
    display.done(
        [
            f"{result.n} spots of {len(result.slices)} slices{left}, {result.k} domains{sure}",
            *laid,
            str(result.path / "integrated.zarr"),
            str(result.path / "report.html"),
            *_judged(result.quality()),
        ],
        run=result.path,
        spots=result.n,
        left_out=result.left_out,
        slices=result.slices,
        domains=result.k,
        domains_range=result.k_range,
        verdict=(result.quality() or {}).get("verdict"),
    )


def _judged(card: dict[str, Any] | None) -> list[str]:
    """Return the label-free card in a line, its verdict in another, and what it advises if anything."""
    if card is None:
        return []
    names = {"told": "neighbours tell", "seeds": "seeds agree", "pas": "PAS", "ilisi": "iLISI"}
    floor, parts = card["floor"] or {}, []
    for key, name in names.items():
        values = [f"{found[key]:.3f}" for found in (card["embedding"], floor) if found.get(key) is not None]
        if values:
            parts.append(f"{name} {' / '.join(values)}")
    beside = " (this embedding / smoothed PCA)" if floor and parts else ""
    advice = card.get("scale", {}).get("sentence")
    said = [card["sentence"], *([advice] if advice else [])]
    return [*([f"without labels{beside}: {', '.join(parts)}"] if parts else []), *said]
