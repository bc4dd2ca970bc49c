"""Slices laid on each other: before and after, who is matched to whom, what is left, and the stack."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stscale.report.drawing import WIDTH, Panel, drawn, label
from stscale.report.laid import Laid, LaidPair
from stscale.report.palette import LEFT_OUT, palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PAIRS = 6
"""Pairs drawn; the table has all."""
MAX_MARKERS = 50_000
"""Spots drawn one by one in one frame; beyond it, as pixels."""
PIXELS = 400
"""Of the longer side of a frame drawn as pixels."""
LINES = 150
"""Matches drawn, at most; a sample, the same every time."""
STACKED = 3000
"""Spots of a slice drawn in the stack, at most."""
MAX_STACKED = 24
"""Slices drawn in the stack."""
SOURCE, TARGET, BOTH = "#E69F00", "#0072B2", "#4D4D4D"
"""Orange, blue and where pixels hold both; the first two are told apart with every common colour blindness."""


def alignment_panels(laid: Laid) -> list[Panel]:
    """Draw the figures of an alignment."""
    count, names = min(len(laid.alignment.pairs), MAX_PAIRS), ", ".join(laid.alignment.names[:8])
    few = "" if count == len(laid.alignment.pairs) else f" The first {count} of {len(laid.alignment.pairs)} pairs."
    tall = 0.42 * WIDTH
    return [
        Panel(
            name="overlay",
            png=drawn(lambda: _rows(laid, count, tall, 2, _before_and_after)),
            alt="Pairs of slices on top of each other, before and after alignment",
            caption="Each pair before (coordinates as given) and after alignment. Orange: source; blue: target; "
            f"dark: both in one pixel (above {MAX_MARKERS:,} spots).{few}",
        ),
        Panel(
            name="matches",
            png=drawn(lambda: _rows(laid, count, tall, 1, _lines)),
            alt="Lines between corresponding spots of pairs of slices",
            caption=f"Up to {LINES} spots of each source, drawn at random, and their likeliest counterparts. The "
            f"source is moved aside after alignment: the lines of a good one run side by side.{few}",
        ),
        Panel(
            name="residuals",
            png=drawn(lambda: _tiles(laid, count, tall, _residuals)),
            alt="Maps of the distance between aligned spots and their counterparts",
            caption="Distance between each aligned source spot and the mean position of its counterparts, weighted by "
            f"the plan; the scale ends at the 98th percentile. Grey: spots without a counterpart.{few}",
        ),
        Panel(
            name="stack",
            png=drawn(lambda: _stack(laid)),
            alt=f"The slices {names} above each other in the common frame",
            caption=f"Slices in the common frame by domain, up to {STACKED:,} spots each"
            + (" at their heights." if laid.alignment.z is not None else ", one step apart: no heights were told."),
        ),
    ]


def _rows(
    laid: Laid, count: int, tall: float, across: int, draw: Callable[[Laid, LaidPair, list["Axes"]], None]
) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, tall * count), layout="constrained")
    grid = figure.subplots(count, across, squeeze=False)
    for number in range(count):
        draw(laid, laid.pair(number), list(grid[number]))
    return figure


def _tiles(laid: Laid, count: int, tall: float, draw: Callable[[Laid, LaidPair, list["Axes"]], None]) -> "Figure":
    from matplotlib.figure import Figure

    across = min(2, count)
    down = -(-count // across)
    figure = Figure(figsize=(WIDTH, tall * down * (1 if across == 2 else 1.6)), layout="constrained")
    places = figure.subplots(down, across, squeeze=False).ravel()
    for number, ax in enumerate(places):
        if number < count:
            draw(laid, laid.pair(number), [ax])
        else:
            ax.set_axis_off()
    return figure


def _axes(ax: "Axes", title: str, unit: str) -> None:
    ax.set_title(title, pad=4)
    ax.set(xlabel=f"x, {unit}", ylabel=f"y, {unit}")
    ax.set_aspect("equal")
    if not ax.yaxis_inverted():
        ax.invert_yaxis()  # down, as in an image


def _before_and_after(laid: Laid, pair: LaidPair, axes: list["Axes"]) -> None:
    unit = "µm" if laid.alignment.unit == "µm" else "units"
    said = f"{label(pair.source)} on {label(pair.target)}"
    for ax, clouds, when in zip(axes, (pair.before, pair.after), ("before", "after"), strict=True):
        _two_clouds(ax, *clouds)
        _axes(ax, f"{said}, {when}", unit)


def _two_clouds(ax: "Axes", source: NDArray[np.float64], target: NDArray[np.float64]) -> None:
    if len(source) + len(target) <= MAX_MARKERS:
        size = _marker(max(len(source), len(target)))
        ax.scatter(target[:, 0], target[:, 1], s=size, c=TARGET, alpha=0.6, linewidths=0)
        ax.scatter(source[:, 0], source[:, 1], s=size, c=SOURCE, alpha=0.6, linewidths=0)
        return
    from matplotlib.colors import to_rgb

    low, high, shape = _frame(np.concatenate([source, target]))
    held = _binned(source, low, high, shape) > 0, _binned(target, low, high, shape) > 0
    colours = np.array([to_rgb(c) for c in ("#FFFFFF", SOURCE, TARGET, BOTH)])
    _image(ax, colours[held[0] + 2 * held[1]], low, high)


def _lines(laid: Laid, pair: LaidPair, axes: list["Axes"]) -> None:
    from matplotlib.collections import LineCollection

    (source, target), ax = pair.after, axes[0]
    aside = np.array([1.1 * max(np.ptp(source[:, 0]), np.ptp(target[:, 0])), 0.0])
    rng = np.random.default_rng(0)
    for cloud, colour in ((target, TARGET), (source + aside, SOURCE)):
        shown = cloud if len(cloud) <= MAX_MARKERS else cloud[rng.choice(len(cloud), MAX_MARKERS, replace=False)]
        ax.scatter(shown[:, 0], shown[:, 1], s=_marker(len(shown)) / 2, c=colour, alpha=0.35, linewidths=0)
    best = pair.plan.best()[0]
    rows = np.flatnonzero(best >= 0)
    rows = rows if len(rows) <= LINES else np.sort(rng.choice(rows, LINES, replace=False))
    ends = np.stack([source[rows] + aside, target[best[rows]]], axis=1)
    ax.add_collection(LineCollection(list(ends), colors="#1A1A1A", linewidths=0.4, alpha=0.6))
    unit = "µm" if laid.alignment.unit == "µm" else "units"
    _axes(ax, f"{label(pair.target)} (left), {label(pair.source)} (right), {len(rows)} matches", unit)


def _residuals(laid: Laid, pair: LaidPair, axes: list["Axes"]) -> None:
    (source, _), ax = pair.after, axes[0]
    left = pair.residuals()
    known = np.isfinite(left)
    top = float(np.quantile(left[known], 0.98)) if known.any() else 1.0
    scale: dict[str, Any] = {"cmap": "cividis", "vmin": 0.0, "vmax": top or 1.0}
    shown: Any
    if len(source) <= MAX_MARKERS:
        ax.scatter(source[~known, 0], source[~known, 1], s=_marker(len(source)), c=LEFT_OUT, linewidths=0)
        shown = ax.scatter(
            source[known, 0], source[known, 1], s=_marker(len(source)), c=left[known], linewidths=0, **scale
        )
    else:
        low, high, shape = _frame(source)
        count = _binned(source[known], low, high, shape)
        with np.errstate(invalid="ignore"):
            mean = _binned(source[known], low, high, shape, weights=left[known]) / count
        shown = _image(ax, mean, low, high, **scale)
    unit = "µm" if laid.alignment.unit == "µm" else "units"
    ax.figure.colorbar(shown, ax=ax, label=f"distance, {unit}", shrink=0.8)
    _axes(ax, f"{label(pair.source)} on {label(pair.target)}", unit)


def _stack(laid: Laid) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 0.62 * WIDTH))
    # a 3d panel keeps wide margins of its own
    ax: Any = figure.add_axes((0.02, 0.02, 0.96, 0.96), projection="3d")
    colours, rng = np.array([*palette(len(laid.spots.domains)), LEFT_OUT]), np.random.default_rng(0)
    for i in range(min(len(laid.alignment.names), MAX_STACKED)):
        xy, domain = laid.aligned(i), laid.spots.domain[laid.spots.rows(i)]
        kept = np.arange(len(xy)) if len(xy) <= STACKED else rng.choice(len(xy), STACKED, replace=False)
        z = float(i if laid.alignment.z is None else laid.alignment.z[i])
        at, size = (*xy[kept].T, np.full(len(kept), z)), _marker(len(kept))
        # without shades: a domain has one colour on the whole page
        ax.scatter(*at, s=size, c=colours[domain[kept]], linewidths=0, depthshade=False)
    unit = "µm" if laid.alignment.unit == "µm" else "units"
    ax.set(xlabel=f"x, {unit}", ylabel=f"y, {unit}", zlabel="slice" if laid.alignment.z is None else f"z, {unit}")
    if laid.alignment.z is None:
        ax.zaxis.get_major_locator().set_params(integer=True)
    ax.invert_yaxis()
    wide, deep = np.ptp(ax.get_xlim()), np.ptp(ax.get_ylim())
    ax.set_box_aspect((wide, deep, 0.6 * max(wide, deep)), zoom=1.15)
    return figure


def _marker(n: int) -> float:
    return float(np.clip(9000 / max(n, 1), 0.5, 14.0))


def _frame(xy: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[int, int]]:
    """Return corners and pixels (along x, along y), coarse enough that neighbouring spots touch."""
    low, high = xy.min(axis=0), xy.max(axis=0)
    extent = np.maximum(high - low, 1e-9 * max(float(np.abs(high).max()), 1.0))
    longest = min(PIXELS, int(1.2 * np.sqrt(len(xy) / 2)))
    x, y = np.maximum(1, np.ceil(extent / extent.max() * longest)).astype(int)
    return low, low + extent, (int(x), int(y))


def _binned(
    xy: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    shape: tuple[int, int],
    weights: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    bounds = [(float(low[a]), float(high[a])) for a in range(2)]
    return np.histogram2d(xy[:, 0], xy[:, 1], bins=shape, range=bounds, weights=weights)[0].T


def _image(
    ax: "Axes", pixels: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64], **scale: Any
) -> Any:
    corners = (float(low[0]), float(high[0]), float(low[1]), float(high[1]))
    return ax.imshow(pixels, extent=corners, origin="lower", interpolation="nearest", **scale)
