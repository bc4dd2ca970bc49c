"""How well slices mix: before the integration and in the embedding, slice by slice."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stscale.analysis.metrics_mixing import LISI_NEIGHBORS, PERPLEXITY, lisi
from stscale.graphs.neighbors import search
from stscale.report.drawing import WIDTH, Panel, drawn, labels
from stscale.report.fitted import Fitted, sampled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_SPOTS = 5000
"""Spots the neighbours are searched among, drawn by the run's seed."""

MAX_SLICES = 60
"""Slices drawn; the table holds all."""

FEWEST = 30
"""Spots below which neighbourhoods mean nothing."""

BEFORE, AFTER = "#767676", "#0072B2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixing:
    """Median iLISI of the spots of each slice: 1 apart, up to the number of slices when they mix evenly.

    Attributes
    ----------
    slices
        Names.
    before, smoothed, after
        (s,) float64; NaN for a slice without a spot in the sample. Of uncorrected principal components, of the same
        averaged over spatial neighbours, and of the embedding.
    overall
        The same over all spots, (before, smoothed, after).
    spots, of
        Spots looked at, and how many there are.
    """

    slices: tuple[str, ...]
    before: NDArray[np.float64]
    smoothed: NDArray[np.float64]
    after: NDArray[np.float64]
    overall: tuple[float, float, float]
    spots: int
    of: int


def measure_mixing(fitted: Fitted, *, centred_per_slice: bool, seed: int) -> Mixing | None:
    """Compute the local inverse Simpson index of slices; None with one slice or hardly a spot.

    Parameters
    ----------
    fitted
        The fit.
    centred_per_slice
        Whether its principal components were.
    seed
        Of the sample.
    """
    n, names = fitted.features.n, fitted.features.slice_names
    if len(names) < 2 or n < FEWEST:
        return None
    rows = sampled(n, MAX_SPOTS, np.random.default_rng(seed))
    group = fitted.features.slice()[rows]
    views = (
        fitted.uncorrected(rows, centred_per_slice=centred_per_slice),
        fitted.smoothed(rows, centred_per_slice=centred_per_slice),
        np.ascontiguousarray(fitted.latents[rows], dtype=np.float32),
    )
    k = min(LISI_NEIGHBORS, len(rows) - 1)
    medians, overall = [], []
    for x in views:
        near = search(x, x, k, exclude_self=True, seed=seed)
        index = lisi(near, group, perplexity=min(PERPLEXITY, k / 3))
        parts = [index[group == i] for i in range(len(names))]
        medians.append(np.array([np.median(part) if len(part) else np.nan for part in parts]))
        overall.append(float(np.median(index)))
    return Mixing(
        slices=names,
        before=medians[0],
        smoothed=medians[1],
        after=medians[2],
        overall=(overall[0], overall[1], overall[2]),
        spots=len(rows),
        of=n,
    )


def mixing_panel(found: Mixing) -> Panel:
    """Draw the index of each slice before and after."""
    shown, sample = min(len(found.slices), MAX_SLICES), ""
    if found.spots < found.of:
        sample = f" Measured on a random sample of {found.spots:,} of {found.of:,} spots."
    if shown < len(found.slices):
        sample += f" The first {shown} of {len(found.slices)} slices are shown; the table holds all."
    return Panel(
        name="mixing",
        png=drawn(lambda: _figure(found, shown)),
        alt=f"Mixing of {shown} slices, median iLISI: {found.overall[0]:.2f} before the integration, "
        f"{found.overall[1]:.2f} with spatial averages, {found.overall[2]:.2f} after; at most {len(found.slices)}",
        caption="From how many slices a spot's nearest neighbours come (iLISI, median over a slice's spots): 1 when "
        f"slices lie apart, towards {len(found.slices)} when they mix evenly; less where slices hold different tissue. "
        "Before (circle): principal components of the normalised counts with one mean for all slices, nothing "
        "corrected. Averaged (square): the same, averaged twice over spatial neighbours. After (filled): the "
        "embedding. Whatever shares values between neighbouring spots makes spots of one place alike, and those are of "
        "one slice: so the embedding is to be compared with the averages, which share as it does, rather than with "
        f"single spots.{sample}",
    )


def _figure(found: Mixing, shown: int) -> "Figure":
    from matplotlib.figure import Figure

    names = labels(found.slices[:shown])
    left = 0.35 + 0.078 * max(len(n) for n in names)
    bars = 0.27 * shown + 0.15
    total = bars + 0.95
    figure = Figure(figsize=(WIDTH, total))
    ax = figure.add_axes((left / WIDTH, 0.5 / total, (WIDTH - left - 0.35) / WIDTH, bars / total))
    y = np.arange(shown)
    before, smoothed, after = (v[:shown] for v in (found.before, found.smoothed, found.after))
    ax.hlines(y, smoothed, after, color="#BBBBBB", linewidth=1.4, zorder=1)
    ax.scatter(before, y, s=42, facecolors="white", edgecolors=BEFORE, linewidths=1.5, label="before", zorder=2)
    ax.scatter(
        smoothed, y, s=38, marker="s", facecolors="white", edgecolors=BEFORE, linewidths=1.5, label="before, averaged"
    )
    ax.scatter(after, y, s=46, color=AFTER, label="after", zorder=3)
    ax.set(xlim=(0.95, len(found.slices) * 1.02), ylim=(shown - 0.5, -0.5), xlabel="effective number of slices (iLISI)")
    ax.set_yticks(y, labels=names)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color="#E4E4E4", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, borderaxespad=0.2, handletextpad=0.2)
    return figure
