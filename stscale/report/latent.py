"""The embedding as a flat map, by slice and by domain."""

import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stscale.report.contents import Contents, Spots
from stscale.report.drawing import WIDTH, Panel, add_legend, drawn, label, labels, legend_shape, write_name
from stscale.report.palette import COLOURS, palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_SPOTS = 6000
"""Spots in the map, drawn by the run's seed: its time is bounded whatever the run holds."""

FEWEST = 500
"""Spots below which neighbourhoods mean little and two principal components are drawn instead."""

NEIGHBORS, MIN_DIST, EPOCHS = 15, 0.3, 150


def latent_map(contents: Contents) -> Panel | None:
    """Draw the UMAP of the embedding, by slice and by domain; None with fewer than 3 spots."""
    spots = contents.spots
    seed = int(contents.option("run", "seed") or 0)
    rng = np.random.default_rng(seed)
    fit = np.flatnonzero(spots.domain >= 0)
    if len(fit) < 3:
        return None
    rows = np.sort(rng.choice(fit, size=MAX_SPOTS, replace=False)) if len(fit) > MAX_SPOTS else fit
    z = spots.latents(rows)
    unwanted = contents.option("report", "umap") is False
    if unwanted or len(rows) < FEWEST:
        why = "report.umap is off" if unwanted else f"fewer than {FEWEST} spots: no UMAP"
        plane, axes = principal_plane(z)[0], "PC"
        what = f"The embedding as its first two principal components ({why})."
    else:
        plane, axes = umap_plane(z, seed=seed), "UMAP"
        what = f"The embedding as a UMAP ({NEIGHBORS} neighbours): near spots stay near; distances between far groups, "
        what += "their sizes and shapes mean little."
    order = rng.permutation(len(rows))  # so that no slice covers the others
    sample = "" if len(rows) == len(fit) else f" A random sample of {len(rows):,} of {len(fit):,} spots is shown."
    legend = "" if len(spots.slices) <= len(COLOURS) else " Too many slices for a legend; their colours repeat."
    return Panel(
        name="latent",
        png=drawn(lambda: _figure(spots, rows[order], plane[order], axes)),
        alt=f"Two scatter plots of the embedding ({axes}), coloured by slice and by domain",
        caption=f"{what} Slices on top of each other are well mixed, domains far apart are well separated."
        f"{sample}{legend}",
    )


def umap_plane(z: NDArray[np.float32], *, seed: int) -> NDArray[np.float64]:
    """Lay rows (m, d) out in the plane by UMAP (McInnes et al. 2018), (m, 2); the same seed gives the same bits.

    Neighbours are exact, the start is the principal plane, and the number of epochs is fixed.
    """
    from stscale.graphs.neighbors import search

    k = min(NEIGHBORS, len(z) - 1)
    near = search(z, z, k - 1, exclude_self=True, seed=seed)
    # as the library counts: a row is its own first neighbour
    index = np.column_stack([np.arange(len(z)), near.index]).astype(np.int32)
    distance = np.column_stack([np.zeros(len(z), np.float32), near.distance])
    start = principal_plane(z)[0]
    start *= 10.0 / max(float(np.abs(start).max()), 1e-300)
    with warnings.catch_warnings():
        # on import of optional parts that are not there, and that new rows could not be placed later
        warnings.simplefilter("ignore")
        from umap import UMAP

        fit = UMAP(
            n_neighbors=k,
            min_dist=MIN_DIST,
            n_epochs=EPOCHS,
            init=start.astype(np.float32),
            precomputed_knn=(index, distance),
            force_approximation_algorithm=True,
            random_state=seed % 2**32,
            n_jobs=1,
        )
        return np.asarray(fit.fit_transform(z), dtype=np.float64)


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


def _figure(spots: Spots, rows: NDArray[np.int64], plane: NDArray[np.float64], axes: str) -> "Figure":
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
        ax.set(xlabel=f"{axes} 1", ylabel=f"{axes} 2", xticks=[], yticks=[])
        if by == "domain":
            _number(ax, plane, code[rows], names)
        if names:
            colour = palette(len(names))
            add_legend(figure, names, colour, title=title, left=x, width=side, top=below + 0.12)
    return figure


def _number(ax: "Axes", plane: NDArray[np.float64], code: NDArray[np.integer], names: list[str]) -> None:
    """Write the name of each domain where half of its spots lie to either side."""
    for k in np.unique(code):
        write_name(ax, np.median(plane[code == k], axis=0), names[int(k)])
