"""`stscale plan`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stscale.inputs import matched

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
    Setting,
    Split,
    Threads,
    Vocabulary,
    configured,
    joining,
)

if TYPE_CHECKING:
    from stscale.planning import Plan


def plan(
    slices: Annotated[list[Path], typer.Argument(help="Slices: .zarr, .h5ad, 10x Visium folders, SpatialData.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the run would be written.")] = Path(),
    max_ram: MaxRam = None,
    max_vram: MaxVram = None,
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
    threads: Threads = None,
    idle: Annotated[
        bool, typer.Option("--idle", help="Count GPU memory that other processes hold as free: for a later start.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Say what `integrate` would take: memory, GPU memory, disk and time of every stage.

    Reads headers and probes this machine for about a second. With a budget, options are lowered until the run fits;
    where nothing helps, the smallest budget that would do is named (exit code 2). `integrate` makes the same plan
    first.
    """
    run = configured(
        config,
        preset,
        settings,
        {
            "run": {"method": method, "threads": threads, "device": device, "max_ram": max_ram, "max_vram": max_vram},
            "domains": {"k": domains},
            "ingest": {"split": split, "coordinates": coordinates, "layer": layer},
            "preprocess": {"lognormalized": lognormalized, "fractional": fractional, "genes": genes},
        },
    )
    run = joining(run, align)
    from stscale.pipeline import plan as plan_slices

    found = plan_slices(matched(slices), out=out, config=run, idle=idle)
    typer.echo(json.dumps(found.record(), indent=2) if as_json else "\n".join(told(found)))


def told(found: "Plan") -> list[str]:
    """Return the plan as lines of text."""
    from stscale.size import said

    from .progress import duration

    size = found.size
    lines = [
        f"{size.slices} slices, {size.n:,} spots, {size.genes:,} of {size.vocabulary:,} genes, {size.stored:,} counts",
        "",
        f"{'stage':<10}{'memory':>9}{'GPU':>9}{'disk':>9}{'time':>9}",
    ]
    for c in found.costs:
        gpu = said(c.vram) if c.vram else "-"
        lines.append(f"{c.stage:<10}{said(c.ram):>9}{gpu:>9}{said(c.disk):>9}{duration(c.seconds):>9}")
    gpu = said(found.vram) if found.vram else "-"
    lines.append(f"{'in all':<10}{said(found.ram):>9}{gpu:>9}{said(found.disk):>9}{duration(found.seconds):>9}")
    if found.changes:
        lines.append("")
    for change in found.changes:
        effect = "the result depends on it" if change.result else "the result does not depend on it"
        lines.append(f"{change.option}: {change.before} lowered to {change.after} to fit ({effect})")
    return [*lines, *found.notes]
