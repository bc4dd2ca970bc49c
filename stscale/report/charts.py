"""Composition, estimate of K, losses and latent map."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stscale.report.contents import Contents, Spots
from stscale.report.drawing import WIDTH, Panel, add_legend, drawn, label, labels, legend_shape
from stscale.report.palette import COLOURS, palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_BARS = 60
"""Slices in the chart of the composition; the table below it holds all."""

MAX_LATENTS = 20_000
"""Spots in the latent map, drawn by the run's seed."""

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
    return Panel(
        name="estimate",
        png=drawn(lambda: _estimate(k, bic, chosen)),
        alt=f"Bayesian information criterion for K from {k.min()} to {k.max()}; {chosen} was chosen",
        caption=f"How many domains: the Bayesian information criterion (BIC, smaller is better) of a Gaussian mixture "
        f"for each K. K = {chosen} was chosen: {why}.",
    )


def _estimate(k: NDArray[np.int64], bic: NDArray[np.float64], chosen: int) -> "Figure":
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    figure = Figure(figsize=(WIDTH, 3.0))
    ax = figure.add_axes((0.13, 0.18, 0.82, 0.74))
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


def latent_map(contents: Contents) -> Panel | None:
    """Draw two principal components of the embedding, by slice and by domain; None with fewer than 3 spots."""
    spots = contents.spots
    rng = np.random.default_rng(int(contents.option("run", "seed") or 0))
    fit = np.flatnonzero(spots.domain >= 0)
    if len(fit) < 3:
        return None
    rows = np.sort(rng.choice(fit, size=MAX_LATENTS, replace=False)) if len(fit) > MAX_LATENTS else fit
    plane, explained = principal_plane(spots.latents(rows))
    order = rng.permutation(len(rows))  # so that no slice covers the others
    sample = "" if len(rows) == len(fit) else f" A random sample of {len(rows):,} of {len(fit):,} spots is shown."
    legend = "" if len(spots.slices) <= len(COLOURS) else " Too many slices for a legend; their colours repeat."
    return Panel(
        name="latent",
        png=drawn(lambda: _latent(spots, rows[order], plane[order], explained)),
        alt="Two scatter plots of the embedding's first two principal components, coloured by slice and by domain",
        caption="The embedding as its first two principal components (PCA; a flat view of all its dimensions). Slices "
        f"that lie on top of each other are well mixed, domains that lie apart are well separated.{sample}{legend}",
    )


def principal_plane(z: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Project rows (m, d) on their first two principal axes.

    Returns
    -------
    plane
        (m, 2) float64; each axis points where its largest loading is positive.
    explained
        (2,) share of the variance.
    """
    x = z.astype(np.float64)
    x -= x.mean(axis=0)
    variance, axes = np.linalg.eigh(x.T @ x)
    axes = axes[:, ::-1][:, :2]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(2)])
    return x @ axes, np.maximum(variance[::-1][:2], 0) / max(float(variance.sum()), 1e-300)


def _latent(spots: Spots, rows: NDArray[np.int64], plane: NDArray[np.float64], explained: Any) -> "Figure":
    from matplotlib.figure import Figure

    side, left = 3.75, (0.5, 5.0)
    few = len(spots.slices) <= len(COLOURS)
    groups = (
        ("slice", "Slice", labels(spots.slices, 18) if few else [], spots.group),
        ("domain", "Domain", [label(d, 12) for d in spots.domains], spots.domain),
    )
    below = max(legend_shape(names, side)[1] for _, _, names, _ in groups)
    total = side + below + 0.85
    figure = Figure(figsize=(WIDTH, total))
    size = float(np.clip(24_000 / len(rows), 2.0, 16.0))
    for x, (by, title, names, code) in zip(left, groups, strict=True):
        ax = figure.add_axes((x / WIDTH, (below + 0.5) / total, side / WIDTH, side / total))
        colours = np.array(palette(int(code.max()) + 1))
        ax.scatter(plane[:, 0], plane[:, 1], s=size, c=colours[code[rows]], linewidths=0, alpha=0.8)
        ax.set_title(f"by {by}", loc="left")
        ax.set(xlabel=f"PC 1 ({explained[0]:.0%})", ylabel=f"PC 2 ({explained[1]:.0%})", xticks=[], yticks=[])
        if names:
            colour = palette(len(names))
            add_legend(figure, names, colour, title=title, left=x, width=side, top=below + 0.12)
    return figure
