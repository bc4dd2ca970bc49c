"""Domains along pseudotime, and how they hang together."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stscale.report.drawing import WIDTH, drawn, label
from stscale.report.palette import palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WEAK = 0.01
"""Connectivity below which no line is drawn."""

THICK = 6.0
"""Width of a line of connectivity 1, points."""


def drawn_trajectory(times: list[NDArray[np.float64]], connectivity: NDArray[np.float64], names: list[str]) -> bytes:
    """Draw boxes of pseudotime per domain, in order, and the abstracted graph on a circle in the same order.

    Parameters
    ----------
    times
        Pseudotime of the spots of each domain, finite.
    connectivity
        (K, K) of the domains.
    names
        (K,) of the domains.

    Returns
    -------
    bytes
        PNG.
    """

    def draw() -> "Figure":
        from matplotlib.figure import Figure

        reached = [k for k in range(len(names)) if len(times[k])]
        order = sorted(reached, key=lambda k: float(np.median(times[k])))
        figure = Figure(figsize=(WIDTH, 0.45 * WIDTH), layout="constrained")
        boxes, graph = figure.subplots(1, 2)
        _boxes(boxes, [times[k] for k in order], [names[k] for k in order], [palette(len(names))[k] for k in order])
        _graph(graph, connectivity[np.ix_(order, order)], [names[k] for k in order], order, len(names))
        return figure

    return drawn(draw)


def _boxes(axes: "Axes", times: list[NDArray[np.float64]], names: list[str], colours: list[str]) -> None:
    found = axes.boxplot(times, orientation="horizontal", showfliers=False, patch_artist=True, widths=0.6)
    for box, colour in zip(found["boxes"], colours, strict=True):
        box.set_facecolor(colour)
    for line in found["medians"]:
        line.set_color("#000000")
    axes.set_yticks(range(1, len(names) + 1), [label(name) for name in names])
    axes.invert_yaxis()
    axes.set(xlabel="diffusion pseudotime", ylabel="domain")


def _graph(axes: "Axes", connectivity: NDArray[np.float64], names: list[str], order: list[int], count: int) -> None:
    k = len(names)
    angle = np.pi / 2 - 2 * np.pi * np.arange(k) / max(k, 1)
    x, y = np.cos(angle), np.sin(angle)
    for i, j in zip(*np.triu_indices(k, 1), strict=True):
        if connectivity[i, j] >= WEAK:
            axes.plot(x[[i, j]], y[[i, j]], color="#888888", lw=THICK * connectivity[i, j], zorder=1)
    axes.scatter(x, y, s=380, c=[palette(count)[d] for d in order], edgecolors="white", zorder=2)
    for at_x, at_y, name in zip(x, y, names, strict=True):
        axes.annotate(label(name, 12), (1.25 * at_x, 1.25 * at_y), ha="center", va="center")
    axes.set(xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), aspect="equal", title="connectivity of domains (PAGA)")
    axes.axis("off")
