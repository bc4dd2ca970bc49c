"""What alignment sees of a slice: positions, latents, spatial neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from stscale.errors import InputError
from stscale.graphs.build import knn_graph
from stscale.graphs.csr import Graph

MIN_SPOTS = 20
"""Fewer spots than this hold no shape to align."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceView:
    """One slice as alignment sees it; n spots, all with an embedding.

    Attributes
    ----------
    name
        For messages.
    xy
        (n, 2) float64 positions, in µm where the source tells, else in its own unit.
    z
        (n, d) float32 latents.
    graph
        Spatial neighbours.
    pitch
        Median distance to the nearest other spot, in the units of `xy`.
    """

    name: str
    xy: NDArray[np.float64]
    z: NDArray[np.float32]
    graph: Graph
    pitch: float

    @property
    def n(self) -> int:
        """Number of spots."""
        return len(self.xy)

    @classmethod
    def build(cls, name: str, xy: ArrayLike, z: ArrayLike, *, graph: Graph | None = None, k: int = 6) -> SliceView:
        """Check a slice and measure its pitch.

        Parameters
        ----------
        name
            Of the slice.
        xy
            (n, 2).
        z
            (n, d).
        graph
            Spatial neighbours; the k nearest when not given.
        k
            Neighbours of that graph.

        Raises
        ------
        InputError
            Shapes that do not fit, three columns of coordinates, fewer than 20 spots, spots without embedding,
            all spots on one line.
        """
        points, latents = np.asarray(xy, np.float64), np.asarray(z, np.float32)
        if points.ndim != 2 or points.shape[1] != 2:
            raise InputError(
                f"slice {name!r} has coordinates of shape {points.shape}; alignment works in the plane, (n, 2)"
            )
        if latents.ndim != 2 or len(latents) != len(points) or latents.shape[1] == 0:
            raise InputError(f"slice {name!r} has {len(points)} spots and latents of shape {latents.shape}")
        if len(points) < MIN_SPOTS:
            raise InputError(f"slice {name!r} has {len(points)} embedded spots; alignment needs at least {MIN_SPOTS}")
        if not np.isfinite(points).all() or not np.isfinite(latents).all():
            raise InputError(f"slice {name!r} has spots without position or embedding; leave them out first")
        spread = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
        if spread[1] <= 1e-6 * spread[0]:
            raise InputError(f"all spots of slice {name!r} lie on one line; there is nothing to turn")
        if graph is not None and graph.n != len(points):
            raise InputError(f"the graph of slice {name!r} has {graph.n} nodes for {len(points)} spots")
        distinct = np.unique(points, axis=0)
        pitch = float(np.median(cKDTree(distinct).query(distinct, k=2)[0][:, 1]))
        return cls(name=name, xy=points, z=latents, graph=graph or knn_graph(points, k), pitch=pitch)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """Points with channels: the spots of a slice, or the means of its spots over square cells.

    Attributes
    ----------
    xy
        (m, 2) float64.
    values
        (m, c) float64 channels.
    """

    xy: NDArray[np.float64]
    values: NDArray[np.float64]

    def coarsen(self, side: float) -> Cloud:
        """Average over square cells of this side; cells that hold less than a third of the usual are dropped."""
        cell = np.floor((self.xy - self.xy.min(axis=0)) / side).astype(np.int64)
        _, place, count = np.unique(
            cell[:, 0] * (cell[:, 1].max() + 1) + cell[:, 1], return_inverse=True, return_counts=True
        )
        held = count >= np.median(count) / 3
        columns = np.hstack([self.xy, self.values])
        sums = np.stack([np.bincount(place, column, len(count)) for column in columns.T], axis=1)
        means = (sums / count[:, None])[held]
        return Cloud(xy=means[:, :2], values=means[:, 2:])


def channels(source: SliceView, target: SliceView, *, center: str = "joint", width: int = 16) -> tuple[Cloud, Cloud]:
    """Reduce the latents of two slices to their common principal components.

    Both slices weigh the same. The channels keep their variances, divided by one number so that they sum to 1.

    Parameters
    ----------
    source, target
        The slices; latents of one width.
    center
        `"joint"` subtracts one mean, `"slice"` each slice's own. An embedding that joins its slices needs no
        centring of its own, and slices that overlap in part differ in their means because they hold different tissue.
    width
        Largest number of channels.

    Raises
    ------
    InputError
        Latents of different widths, or all alike.
    """
    a, b = source.z.astype(np.float64), target.z.astype(np.float64)
    if a.shape[1] != b.shape[1]:
        raise InputError(f"latents of {source.name!r} have {a.shape[1]} columns, of {target.name!r} {b.shape[1]}")
    mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
    if center == "joint":
        mean_a = mean_b = (mean_a + mean_b) / 2
    a, b = a - mean_a, b - mean_b
    values, vectors = np.linalg.eigh((a.T @ a / len(a) + b.T @ b / len(b)) / 2)
    keep = np.argsort(-values)[:width]
    keep = keep[values[keep] > 1e-10 * max(float(values.max()), 1e-300)]
    if not len(keep) or values.max() <= 1e-20:
        raise InputError(f"the latents of {source.name!r} and {target.name!r} are all alike: nothing to match by")
    basis = vectors[:, keep] / np.sqrt(values[keep].sum())
    return Cloud(xy=source.xy, values=a @ basis), Cloud(xy=target.xy, values=b @ basis)
