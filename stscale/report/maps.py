"""Every slice painted by domain."""

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stscale.report.contents import Spots
from stscale.report.drawing import DPI, WIDTH, Panel, add_legend, drawn, label, labels, legend_shape, write_name
from stscale.report.palette import COLOURS, LEFT_OUT, palette
from stscale.report.raster import majority, poles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_SLICES = 24
"""Slices painted; more would be too small to read."""

MAX_MARKERS = 200_000
"""Spots drawn as markers in one figure; beyond it each pixel shows its commonest domain."""

NAMED_SHARE = 0.01
"""Smallest share of a slice's spots at which a domain's name is written on it."""

SPAN = 1.25
"""Smallest pixel of a rasterised slice, in spot pitches: every pixel inside a regular array of spots meets one."""

MARGIN, GAP, TITLE = 0.15, 0.2, 0.3
"""Around the panels, between two columns and above each row, inches."""


def domain_maps(spots: Spots) -> Panel:
    """Paint the slices, at most `MAX_SLICES` of them."""
    shown = min(len(spots.slices), MAX_SLICES)
    raster = int(np.isin(spots.group, np.arange(shown)).sum()) > MAX_MARKERS
    three = spots.root["obsm"]["spatial"].shape[1] == 3
    return Panel(
        name="domains",
        png=drawn(lambda: _figure(spots, shown, raster=raster)),
        alt=f"Map of {shown} slice{'s' * (shown > 1)}, every spot in the colour of its domain",
        caption=_caption(spots, shown, raster=raster, three=three),
    )


def _caption(spots: Spots, shown: int, *, raster: bool, three: bool) -> str:
    text = [
        "Spots at their own coordinates, coloured by domain; a colour and a number mean the same domain in every slice."
    ]
    text.append("The number stands where the domain is widest.")
    text.append("The y axis points down, as in an image; each slice fills its panel, so scales differ between slices.")
    if shown < len(spots.slices):
        text.append(f"The first {shown} of {len(spots.slices)} slices are shown.")
    if (spots.domain < 0).any():
        text.append("Light grey: spots left out of the fit.")
    if raster:
        text.append(f"More than {MAX_MARKERS:,} spots: each pixel shows its commonest domain.")
    if three:
        text.append("The coordinates have three dimensions; the first two are drawn, so layers may cover each other.")
    if len(spots.domains) > len(COLOURS):
        text.append(f"There are more domains than colours: colours repeat after {len(COLOURS)} domains.")
    return " ".join(text)


def columns(n: int) -> int:
    """Return how many panels stand side by side."""
    return {1: 1, 2: 2, 3: 3, 4: 2, 5: 3, 6: 3, 9: 3}.get(n, 4)


def _figure(spots: Spots, shown: int, *, raster: bool) -> "Figure":
    from matplotlib.figure import Figure

    across = columns(shown)
    width = min(6.5, (WIDTH - 2 * MARGIN - GAP * (across - 1)) / across)
    start = (WIDTH - across * width - GAP * (across - 1)) / 2
    frames = [_frame(spots.coordinates(i)) for i in range(shown)]
    aspect = [(high[1] - low[1]) / (high[0] - low[0]) for low, high, _ in frames]
    heights = [width * min(1.3, max(0.35, *aspect[row : row + across], 0.0)) for row in range(0, shown, across)]
    titles = labels(spots.slices[:shown], int(width / 0.1) - 6)
    grey = bool((spots.domain < 0).any())
    names = [label(d, 12) for d in spots.domains] + ["left out"] * grey
    colours = palette(len(spots.domains)) + [LEFT_OUT] * grey
    _, below = legend_shape(names, WIDTH - 2 * MARGIN)
    total = sum(heights) + TITLE * len(heights) + below + 2 * MARGIN
    figure = Figure(figsize=(WIDTH, total))
    top = total
    for i, (low, high, pitch) in enumerate(frames):
        row, column = divmod(i, across)
        if column == 0:
            top -= TITLE + (heights[row - 1] if row else 0.0)
        box = (start + column * (width + GAP), top - heights[row], width, heights[row])
        ax = figure.add_axes((box[0] / WIDTH, box[1] / total, box[2] / WIDTH, box[3] / total))
        _paint(ax, spots, i, (low, high, pitch), (width, heights[row]), raster=raster)
        _name(ax, spots, i, (low, high, pitch), size=8.5 if across < 4 else 6.5)
        ax.set_title(f"{titles[i]} ({len(spots.rows(i)):,})", pad=4)
    add_legend(figure, names, colours, title="Domain", left=MARGIN, width=WIDTH - 2 * MARGIN, top=below + MARGIN)
    return figure


Frame = tuple[tuple[float, float], tuple[float, float], float]


def _frame(coordinates: NDArray[np.float64]) -> Frame:
    """Return the corners of a panel, half a pitch around the spots, and the pitch."""
    xy = coordinates[:, :2]
    if not len(xy):
        return (0.0, 0.0), (1.0, 1.0), 1.0
    pitch = spot_pitch(xy)
    low, high = xy.min(axis=0) - pitch / 2, xy.max(axis=0) + pitch / 2
    return (float(low[0]), float(low[1])), (float(high[0]), float(high[1])), pitch


def spot_pitch(xy: NDArray[np.floating]) -> float:
    """Return the distance between neighbouring spots, in the unit of `xy` (n, 2); 1 when it has none.

    The median distance to the fourth neighbour: the pitch itself on a square or hexagonal array, and about the
    pitch of an array of the same density where cells lie at random. Above `MAX_MARKERS` spots it comes from the
    area that they occupy.
    """
    n = len(xy)
    low, extent = xy.min(axis=0), np.ptp(xy, axis=0)
    if n < 2 or not extent.any():
        return 1.0
    if n <= MAX_MARKERS:
        from scipy.spatial import cKDTree

        sample = xy[:: max(1, n // 2000)]
        distance = np.asarray(cKDTree(xy).query(sample, k=min(5, n))[0])[:, -1]
        pitch = float(np.median(distance))
    else:
        bins = 64
        cells = np.minimum(((xy - low) / np.maximum(extent, 1e-300) * bins).astype(np.int64), bins - 1)
        occupied = len(np.unique(cells[:, 0] * bins + cells[:, 1]))
        pitch = math.sqrt(float(extent.prod()) / bins**2 * occupied / n)
    return pitch or float(extent.max()) / math.sqrt(n)


def _paint(ax: "Axes", spots: Spots, i: int, frame: Frame, inches: tuple[float, float], *, raster: bool) -> None:
    low, high, pitch = frame
    size = (high[0] - low[0], high[1] - low[1])
    scale = min(inches[0] / size[0], inches[1] / size[1])  # inches per unit of the coordinates
    xy, domain = spots.coordinates(i)[:, :2], spots.domain[spots.rows(i)]
    lookup = np.array(_rgb([*palette(len(spots.domains)), "#FFFFFF", LEFT_OUT]))  # -2 and -1 are the last two
    if raster:
        step = max(1 / (scale * DPI), SPAN * pitch)
        shape = (max(1, int(size[1] / step)), max(1, int(size[0] / step)))
        image = majority(xy, domain, low=low, high=high, shape=shape)
        extent = (low[0], high[0], low[1], high[1])
        ax.imshow(lookup[image], extent=extent, origin="lower", interpolation="nearest", aspect="equal")
    else:
        points = min(40.0, max(0.6, 72 * scale * pitch))
        order = np.argsort(domain >= 0, kind="stable")  # spots left out lie below
        ax.scatter(xy[order, 0], xy[order, 1], s=points**2, c=lookup[domain[order]], linewidths=0, clip_on=False)
    ax.set_aspect("equal", adjustable="box", anchor="N")
    ax.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]))  # y down
    ax.set_axis_off()


def _name(ax: "Axes", spots: Spots, i: int, frame: Frame, *, size: float) -> None:
    """Write the names of the larger domains on a slice: colour is never alone."""
    low, high, pitch = frame
    domain = spots.domain[spots.rows(i)]
    extent = max(high[0] - low[0], high[1] - low[1])
    step = max(SPAN * pitch, extent / 200)
    shape = (max(1, int((high[1] - low[1]) / step)), max(1, int((high[0] - low[0]) / step)))
    image = majority(spots.coordinates(i)[:, :2], domain, low=low, high=high, shape=shape)
    count = np.bincount(domain[domain >= 0], minlength=len(spots.domains))
    for k, (row, column) in poles(image, len(spots.domains)).items():
        if count[k] >= NAMED_SHARE * len(domain):
            x = low[0] + (column + 0.5) / shape[1] * (high[0] - low[0])
            y = low[1] + (row + 0.5) / shape[0] * (high[1] - low[1])
            write_name(ax, np.array([x, y]), label(spots.domains[k], 12), size)


def _rgb(colours: list[str]) -> list[tuple[float, float, float]]:
    from matplotlib.colors import to_rgb

    return [to_rgb(c) for c in colours]
