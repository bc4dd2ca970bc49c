"""The tables of the page, and how to make the run again."""

import math
import shlex
from pathlib import Path

from stscale.report.contents import Contents
from stscale.report.laid import Laid
from stscale.report.markers import Markers
from stscale.report.markup import code, paragraph, table
from stscale.report.mixing import Mixing
from stscale.report.palette import palette

SHOWN = 6
"""Markers of a domain in the short table."""


def counts_table(contents: Contents) -> str:
    """Return the spots of each slice and domain."""
    spots = contents.spots
    k = len(spots.domains)
    rows = [
        [name, *(f"{n:,}" for n in row), f"{row.sum():,}"]
        for name, row in zip(spots.slices, spots.counts(), strict=True)
    ]
    head = ["Slice", *spots.domains, "left out", "all"]
    return table(head, rows, numbers=range(1, k + 3), chips=["", *palette(k), "", ""])


def pairs_table(laid: Laid) -> str:
    """Return what was found for each pair of slices."""
    unit = "µm" if laid.alignment.unit == "µm" else "units"
    head = [
        "Pair",
        "Turned",
        f"Shift, {unit}",
        "Scale",
        "Overlap",
        "Inliers",
        f"Residual, {unit}",
        "Matched",
        "Credible",
    ]
    rows = [
        [
            f"{p.source} on {p.target}",
            f"{p.transform.rotation_degrees:.2f}°" + (", mirrored" if p.transform.mirror else ""),
            f"{p.transform.shift[0]:,.0f}, {p.transform.shift[1]:,.0f}",
            f"{p.transform.scale:.3f}",
            f"{p.overlap:.2f}",
            f"{p.inlier_share:.2f}",
            f"{p.residual:,.1f}",
            f"{p.plan_coverage:.2f}",
            "yes" if p.credible else "no",
        ]
        for p in laid.alignment.pairs
    ]
    return table(head, rows, numbers=range(1, 8))


def marker_lines(markers: Markers) -> str:
    """Return the best markers of each domain in one line each, and how they were found."""
    colours = palette(max(markers.of, default=0) + 1)
    rows = [[f"{k}", ", ".join(m.symbol for m in found[:SHOWN])] for k, found in markers.of.items()]
    sample = " at most 1,000 of each domain," if markers.sampled else ""
    how = (
        f"Genes that a domain has more of than all other domains together, best first: Welch's t on the log-normalised "
        f"expression of {markers.spots:,} spots,{sample} and {markers.genes:,} genes. The domains were found from the "
        "same genes, so p values would mean nothing and none is given."
    )
    return table(["Domain", "Markers"], rows, row_chips=[colours[k] for k in markers.of]) + paragraph(how)


def marker_table(markers: Markers) -> str:
    """Return every marker with its numbers."""
    rows = [
        [
            f"{k}",
            m.symbol if m.symbol == m.gene else f"{m.symbol} ({m.gene})",
            f"{m.change:.2f}",
            f"{m.inside:.0%}",
            f"{m.outside:.0%}",
        ]
        for k, found in markers.of.items()
        for m in found
    ]
    head = ["Domain", "Gene", "log₂ fold change", "Spots with it inside", "Outside"]
    return table(head, rows, numbers=(2, 3, 4))


def mixing_table(mixing: Mixing) -> str:
    """Return the index of each slice before and after."""
    both = zip(mixing.slices, mixing.before, mixing.smoothed, mixing.after, strict=True)
    rows = [[name, *("not drawn" if math.isnan(v) else f"{v:.2f}" for v in values)] for name, *values in both]
    rows.append(["all slices", *(f"{v:.2f}" for v in mixing.overall)])
    return table(["Slice", "iLISI before", "Before, averaged", "After"], rows, numbers=(1, 2, 3))


def reproduced(contents: Contents) -> str:
    """Return the commands that make the run again."""
    manifest = contents.manifest
    given = manifest.get("commands", {})
    parts = []
    if given:
        parts.append(paragraph("The run was started by"))
        lines = (shlex.join(str(w) for w in words) for words in given.values())
        parts.append(code("\n".join(dict.fromkeys(lines))))
    inputs = [str(i["path"]) for i in manifest.get("inputs", [])]
    again = ["stscale", "integrate", *inputs, "--config", "config.toml", "--out", Path(contents.name).name]
    seed = contents.option("run", "seed")
    told = f"With the options of this page saved as config.toml (every one is in it, the seed {seed} too), the inputs "
    parts.append(paragraph(told + "and versions below, this makes it again:"))
    parts.append(code(shlex.join(again)))
    return "\n".join(parts)
