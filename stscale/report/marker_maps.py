"""Small maps of the leading marker of each domain."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stscale.report.drawing import DPI, WIDTH, Panel, drawn, label, labels
from stscale.report.fitted import Fitted
from stscale.report.maps import SPAN, spot_pitch
from stscale.report.markers import Marker, Markers
from stscale.report.raster import mean_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_MARKERS = 20_000
"""Spots drawn one by one in a map; beyond it each pixel shows their mean."""

ACROSS = 4

ENOUGH = 0.1
"""Share of a domain's largest number of spots in a slice that the common slice must hold to show it."""


def marker_panel(fitted: Fitted, markers: Markers) -> Panel | None:
    """Map the leading marker of each domain in one slice; None without markers."""
    chosen = markers.leading()
    if not chosen:
        return None
    place = slices_shown(fitted.domain, fitted.features.slice(), list(chosen))
    names = ", ".join(f"domain {k} {m.symbol}" for k, m in chosen.items())
    many = " Where a slice has many spots, each pixel shows their mean."
    raster = any(fitted.features.n_spots[i] > MAX_MARKERS for i in place.values())
    return Panel(
        name="markers",
        png=drawn(lambda: _figure(fitted, chosen, place)),
        alt=f"Maps of the expression of the leading marker gene of each domain: {names}",
        caption="The leading marker of each domain (the next best where an earlier one shows it already), in a "
        "slice that holds the domain: log-normalised expression, from its 1st (dark) to its 99th percentile (yellow)."
        + many
        * raster,
    )


def slices_shown(domain: NDArray[np.integer], group: NDArray[np.integer], wanted: list[int]) -> dict[int, int]:
    """Choose the slice in which each wanted domain is shown: one for all as far as it holds enough of them."""
    k, s = int(domain.max()) + 1, int(group.max()) + 1
    counts = np.bincount(domain.astype(np.int64) * s + group, minlength=k * s).reshape(k, s)[wanted]
    share = counts / counts.max(axis=1, keepdims=True)
    common = int(share.min(axis=0).argmax())
    return {d: common if share[row, common] >= ENOUGH else int(counts[row].argmax()) for row, d in enumerate(wanted)}


def _figure(fitted: Fitted, chosen: dict[int, Marker], place: dict[int, int]) -> "Figure":
    from matplotlib.figure import Figure

    across = min(ACROSS, len(chosen))
    down = -(-len(chosen) // across)
    side = WIDTH / ACROSS
    figure = Figure(figsize=(WIDTH, down * (side + 0.3)), layout="constrained")
    axes = dict(zip(chosen, figure.subplots(down, ACROSS, squeeze=False).ravel(), strict=False))
    for ax in figure.axes:
        ax.set_axis_off()
    short = labels(fitted.features.slice_names, 14)
    # a slice is read once for all its maps
    for i in sorted(set(place.values())):
        here = [k for k in chosen if place[k] == i]
        start, end = (int(v) for v in fitted.features.offsets()[i : i + 2])
        xy = fitted.features.xy(start, end)[:, :2]
        values = fitted.columns(i, np.array([chosen[k].column for k in here]))
        for k, value in zip(here, values.T, strict=True):
            _paint(axes[k], xy, value, side)
            axes[k].set_title(f"{k}: {label(chosen[k].symbol, 16)}\n{short[i]}", fontsize=8.5, pad=3)
    return figure


def _paint(ax: "Axes", xy: NDArray[np.float64], value: NDArray[np.float32], side: float) -> None:
    pitch = spot_pitch(xy)
    low, high = xy.min(axis=0) - pitch / 2, xy.max(axis=0) + pitch / 2
    extent = float((high - low).max())
    bottom, top = (float(v) for v in np.quantile(value, (0.01, 0.99)))
    if bottom == top:  # hardly any spot has it
        bottom, top = 0.0, float(value.max()) or 1.0
    if len(xy) > MAX_MARKERS:
        step = max(extent / (side * DPI), SPAN * pitch)
        shape = (max(1, int((high[1] - low[1]) / step)), max(1, int((high[0] - low[0]) / step)))
        corners = (float(low[0]), float(low[1])), (float(high[0]), float(high[1]))
        image = mean_image(xy, value, low=corners[0], high=corners[1], shape=shape)
        box = (corners[0][0], corners[1][0], corners[0][1], corners[1][1])
        ax.imshow(image, extent=box, origin="lower", interpolation="nearest", cmap="viridis", vmin=bottom, vmax=top)
    else:
        points = min(20.0, max(0.5, 72 * side * 0.95 / extent * pitch))
        ax.scatter(xy[:, 0], xy[:, 1], s=points**2, c=value, cmap="viridis", vmin=bottom, vmax=top, linewidths=0)
    ax.set_aspect("equal")
    ax.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]))  # y down
