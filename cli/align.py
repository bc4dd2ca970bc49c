"""`stscale align`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stscale.config import Run, check_own, load
from stscale.errors import InputError
from stscale.inputs import matched

from .options import (
    Coordinates,
    Debug,
    Domains,
    Fractional,
    Layer,
    Lognormalized,
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
)

if TYPE_CHECKING:
    from stscale.alignment import Alignment, PairRecord

WRITTEN = ("transforms.json", "matches.parquet", "matches.csv.gz", "integrated.zarr", "report.html")
"""Files that are named at the end, where they are there."""

Inputs = Annotated[list[Path], typer.Argument(help="A finished run folder; or slices, integrated first.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Run folder of slices; a run needs none.")]
Pairs = Annotated[str | None, typer.Option("--pairs", help="sequential, star, all, or a TOML or CSV file of pairs.")]
Reference = Annotated[str | None, typer.Option("--reference", help="Slice whose frame is kept.")]
Kind = Annotated[str | None, typer.Option("--kind", help="rigid, similarity or affine.")]
Mirror = Annotated[
    bool | None, typer.Option("--allow-mirror/--no-mirror", help="Take a mirror image, or only report it.")
]
Warped = Annotated[bool | None, typer.Option("--warp/--no-warp", help="Then a smooth displacement.")]
Refine = Annotated[
    bool | None, typer.Option("--refine/--no-refine", help="Correspondences by transport, or matches alone.")
]
Heights = Annotated[str | None, typer.Option("--z", help="Height of each slice, as 0,10,20.")]
Spacing = Annotated[float | None, typer.Option("--spacing", help="Distance of neighbouring slices.")]
Labels = Annotated[list[str] | None, typer.Option("--transfer-labels", help="obs column to carry over; repeatable.")]
Genes = Annotated[str | None, typer.Option("--transfer-genes", help="Genes to carry over, as A,B.")]
File = Annotated[Path | None, typer.Option("--config", "-c", help="TOML file, see `stscale config`.")]
Fresh = Annotated[bool, typer.Option("--fresh/--resume", help="Start over, or reuse what is finished.")]


def align(
    inputs: Inputs,
    out: Out = None,
    pairs: Pairs = None,
    reference: Reference = None,
    kind: Kind = None,
    allow_mirror: Mirror = None,
    warp: Warped = None,
    refine: Refine = None,
    z: Heights = None,
    spacing: Spacing = None,
    transfer_labels: Labels = None,
    transfer_genes: Genes = None,
    domains: Domains = None,
    method: MethodName = None,
    split: Split = None,
    coordinates: Coordinates = None,
    layer: Layer = None,
    lognormalized: Lognormalized = None,
    fractional: Fractional = None,
    genes: Vocabulary = None,
    config: File = None,
    settings: Setting = None,
    seed: Seed = None,
    threads: Threads = None,
    fresh: Fresh = False,
    progress: Progressing = Progress.auto,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Lay slices into one frame and say which spot corresponds to which.

    Writes into the run folder: transforms.json, matches.parquet, obsm spatial_aligned (and spatial_3d with --z or
    --spacing), figures. Options that are not given are those of the run's config.toml; --domains, --method, --split,
    --coordinates, --layer, --lognormalized, --fractional and --genes are for slices, which are integrated first.
    """
    inputs = matched(inputs)
    single = len(inputs) == 1 and (inputs[0] / "manifest.json").is_file()
    base = _base(inputs[0] if single else None, heights=z is not None or spacing is not None)
    options: dict[str, dict[str, Any]] = {
        "run": {"method": method, "seed": seed, "threads": threads},
        "domains": {"k": domains},
        "ingest": {"split": split, "coordinates": coordinates, "layer": layer},
        "preprocess": {"lognormalized": lognormalized, "fractional": fractional, "genes": genes},
        "align": {"pairs": pairs, "reference": reference, "kind": kind, "allow_mirror": allow_mirror, "warp": warp}
        | {"refine": refine, "z": None if z is None else _numbers(z), "spacing": spacing},
    }
    run = configured(config, None, settings, options, base=base)
    if single:
        check_own(run, base)
    from stscale.pipeline import align as align_slices

    from .progress import watching

    with watching(progress, quiet=quiet) as display:
        result = align_slices(
            inputs[0] if single else inputs,
            out=out,
            config=run,
            transfer_labels=transfer_labels or [],
            transfer_genes=list(filter(None, (transfer_genes or "").split(","))),
            fresh=fresh,
            observer=display,
        )
    display.done(said(result.alignment) + _files(result.path), run=result.path, pairs=len(result.alignment.pairs))


def _base(run: Path | None, *, heights: bool) -> Run:
    """Return the options to start from: of a finished run its own, without heights where new ones are given."""
    base = load(run / "config.toml") if run is not None and (run / "config.toml").is_file() else Run()
    return base.replace({"align": {"z": None, "spacing": None}}) if heights else base  # one replaces the other


def said(alignment: "Alignment") -> list[str]:
    """Return a line for each pair, with its notes below."""
    lines = []
    for pair in alignment.pairs:
        lines.append(_line(pair, alignment.unit))
        lines += [f"  note: {note}" for note in pair.notes]
    return lines


def _files(run: Path) -> list[str]:
    return [str(run / name) for name in WRITTEN if (run / name).exists()]


def _line(pair: "PairRecord", unit: str) -> str:
    t, short = pair.transform, "µm" if unit == "µm" else "units"
    parts = [f"turned {t.rotation_degrees:.2f}°", f"shifted ({t.shift[0]:.0f}, {t.shift[1]:.0f}) {short}"]
    if t.kind != "rigid":
        parts.append(f"scaled {t.scale:.3f}")
    if t.mirror:
        parts.append("mirrored")
    parts += [
        f"overlap {pair.overlap:.2f}",
        f"{pair.inlier_share:.0%} of the matches agree within {pair.residual:.0f} {short} on average",
        f"{pair.plan_coverage:.0%} of its spots have a counterpart",
    ]
    return f"{pair.source} on {pair.target}: {', '.join(parts)}"


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--z {text!r}: expected a number for each slice, as 0,10,20") from None
