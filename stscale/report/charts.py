"""Composition, estimate of K and losses."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stscale.report.contents import Contents, Spots
from stscale.report.drawing import WIDTH, Panel, add_legend, drawn, label, labels, legend_shape, write_name
from stscale.report.palette import palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_BARS = 60
"""Slices in the chart of the composition; the table below it holds all."""

NAMED_SHARE = 0.04
"""Smallest share of a slice in which a bar carries the name of its domain."""

TERMS = {
    "loss": "total, weighted",
    "telescope": "similarity telescope",
    "reconstruction": "reconstruction",
    "scale": "similarity-scale matching",
    "prototypes": "prototypes",
}

INK = "#0072B2"


def composition(spots: Spots) -> Panel:
    """Draw the share of each domain in each slice."""
    shown = min(len(spots.slices), MAX_BARS)
    caption = "Share of each domain among the spots of a slice that have a domain."
    if shown < len(spots.slices):
        caption += f" The first {shown} of {len(spots.slices)} slices are shown; the table holds all."
    return Panel(
        name="composition",
        png=drawn(lambda: _composition(spots, shown)),
        alt=f"Stacked bars: share of {len(spots.domains)} domains in each of {shown} slices",
        caption=caption,
    )


def _composition(spots: Spots, shown: int) -> "Figure":
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    counts = spots.counts()[:shown, :-1].astype(float)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = labels(spots.slices[:shown])
    domains = [label(d, 12) for d in spots.domains]
    left = 0.35 + 0.078 * max(len(n) for n in names)
    width = WIDTH - left - 0.35
    _, below = legend_shape(domains, width)
    bars = 0.27 * shown + 0.1
    total = bars + below + 0.65
    figure = Figure(figsize=(WIDTH, total))
    ax = figure.add_axes((left / WIDTH, (below + 0.5) / total, width / WIDTH, bars / total))
    start = np.zeros(shown)
    for k, colour in enumerate(palette(len(domains))):
        ax.barh(np.arange(shown), share[:, k], left=start, height=0.8, color=colour, linewidth=0)
        for row in np.flatnonzero(share[:, k] >= NAMED_SHARE):
            write_name(ax, np.array([start[row] + share[row, k] / 2, row]), domains[k], 8.0)
        start += share[:, k]
    ax.set(xlim=(0, 1), ylim=(shown - 0.5, -0.5))
    ax.set_yticks(np.arange(shown), labels=names)
    ax.xaxis.set_major_formatter(PercentFormatter(1.0))
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    add_legend(figure, domains, palette(len(domains)), title="Domain", left=left, width=width, top=below + 0.12)
    return figure


def estimate(contents: Contents) -> Panel | None:
    """Draw the criterion over K; None when K was not estimated."""
    curve = contents.stage("domains").get("curve")
    if not isinstance(curve, dict):
        return None
    k, bic = np.asarray(curve["k"], dtype=int), np.asarray(curve["bic"], dtype=float)
    chosen = int(curve["chosen"])
    why = {
        "minimum": "its BIC is the smallest",
        "knee": "the BIC is smallest at the largest K tried, so the knee of the curve was taken",
    }.get(str(curve.get("rule")), "by the rule of the run")
    sure = (int(curve["low"]), int(curve["high"])) if "low" in curve else None
    told = ""
    if sure is not None:
        told = " Shaded: nine in ten choices on resampled tissue, the curve cut off anywhere in its last third "
        told += f"({sure[0]} to {sure[1]})."
    return Panel(
        name="estimate",
        png=drawn(lambda: _estimate(k, bic, chosen, sure)),
        alt=f"Bayesian information criterion for K from {k.min()} to {k.max()}; {chosen} was chosen",
        caption=f"How many domains: the Bayesian information criterion (BIC, smaller is better) of a Gaussian mixture "
        f"for each K. K = {chosen} was chosen: {why}.{told}",
    )


def _estimate(k: NDArray[np.int64], bic: NDArray[np.float64], chosen: int, sure: tuple[int, int] | None) -> "Figure":
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    figure = Figure(figsize=(WIDTH, 3.0))
    ax = figure.add_axes((0.13, 0.18, 0.82, 0.74))
    if sure is not None:
        ax.axvspan(sure[0] - 0.3, sure[1] + 0.3, color="#D55E00", alpha=0.12, linewidth=0)
    ax.plot(k, bic, color="#777777", marker="o", markersize=4, linewidth=1.2)
    ax.plot([chosen], bic[k == chosen][:1], marker="o", markersize=9, color="#D55E00", linestyle="none")
    ax.annotate(f"K = {chosen}", (chosen, bic[k == chosen][0]), xytext=(7, 9), textcoords="offset points")
    ax.margins(y=0.14)
    ax.set(xlabel="domains K", ylabel="BIC")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
    return figure


def losses(contents: Contents) -> Panel | None:
    """Draw every term of the training loss; None without a history."""
    history = contents.stage("train").get("history")
    if not history:
        return None
    names = [n for n in dict.fromkeys(n for entry in history for n in entry) if n != "step"]
    names.sort(key=lambda n: list(TERMS).index(n) if n in TERMS else len(TERMS))
    series = {n: _series(history, n) for n in names}
    titles = {n: _title(contents, n) for n in names}
    return Panel(
        name="losses",
        png=drawn(lambda: _losses(series, titles)),
        alt=f"Training loss over {int(history[-1]['step'])} steps: {', '.join(TERMS.get(n, n) for n in names)}",
        caption="The training loss and its terms before weighting, over the optimiser steps (logarithmic y axis unless "
        "values are 0 or below). A term that joins late starts late.",
    )


def _series(history: list[dict[str, Any]], name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    points = [(entry["step"], entry[name]) for entry in history if name in entry]
    step, value = np.array(points, dtype=np.float64).T
    return step, value


def _title(contents: Contents, name: str) -> str:
    weight = contents.option(str(contents.config.get("run", {}).get("method", "")), f"w_{name}")
    plain = label(TERMS.get(name, name), 28)
    return plain if weight is None else f"{plain} (× {weight:g})"


def _losses(series: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]], titles: dict[str, str]) -> "Figure":
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    across = min(3, len(series))
    down = -(-len(series) // across)
    figure = Figure(figsize=(WIDTH, 2.15 * down + 0.15), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    last = max(float(step[-1]) for step, _ in series.values())
    for place, (name, (step, value)) in enumerate(series.items()):
        ax = figure.add_subplot(down, across, place + 1)
        ax.plot(step, value, color=INK, linewidth=1.2, marker="o" if len(step) == 1 else "", markersize=3)
        ax.set_title(titles[name], loc="left")
        ax.set_xlim(0, last * 1.02)
        if (value > 0).all():
            _log_scale(ax)
        if place + across >= len(series):
            ax.set_xlabel("step")
    return figure


def _log_scale(ax: "Axes") -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    ax.set_yscale("log")
    low, high = ax.get_ylim()
    if high / low < 10:
        # hardly a power of ten in sight: round numbers say more
        ax.yaxis.set_major_locator(MaxNLocator(5))
        ax.yaxis.set_minor_locator(NullLocator())
    else:
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high / low > 100 else (1.0, 2.0, 5.0), numticks=8))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
