"""A slice's channels as a smooth function of position: value, slope and where it is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from stscale.alignment.view import Cloud

FIT_NEIGHBOURS = 19  # self and two rings of a hexagonal lattice
READ_NEIGHBOURS = 6
REACH = 1.25
"""A position is covered when a spot lies within this many ring distances (median distance to the 6th neighbour)."""
EDGE = 0.4
"""A point is on the edge when the mean of its neighbourhood lies this many ring distances away from it."""
BLOCK = 1 << 21  # numbers gathered at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A local linear fit of c channels around each of m points (Cleveland 1979, Gaussian weights).

    Attributes
    ----------
    xy
        (m, 2) the points.
    value : (m, c)
        Fitted channels at the points.
    slope : (m, 2, c)
        Their derivatives along x and y.
    ring
        Median distance to the 6th neighbour: the spacing of a hexagonal lattice.
    tree
        Of the points.
    inner : (m,) bool
        Whether a point counts, see `fit`.
    """

    xy: NDArray[np.float64]
    value: NDArray[np.float64]
    slope: NDArray[np.float64]
    ring: float
    tree: cKDTree
    inner: NDArray[np.bool_]

    @classmethod
    def fit(cls, cloud: Cloud, *, erode: bool = False) -> Field:
        """Fit the plane z ≈ a + G (x − x_i) around every point, by its 18 nearest.

        Parameters
        ----------
        cloud
            Points and channels.
        erode
            Leave the points on the edge out of what counts. An embedding averages over neighbours, so at the
            edge it describes tissue further in; where the edge of one slice lies on the inside of the other
            that would pull them apart. Tissue that is mostly edge is left whole.
        """
        tree = cKDTree(cloud.xy)
        m, c = cloud.values.shape
        k = min(FIT_NEIGHBOURS, m)
        distance, near = tree.query(cloud.xy, k=k)
        ring = float(np.median(distance[:, min(6, k - 1)]))
        value, slope, inner = np.empty((m, c)), np.empty((m, 2, c)), np.ones(m, bool)
        step = max(1, BLOCK // (k * c))
        for lo in range(0, m, step):
            rows = slice(lo, lo + step)
            weight = np.exp(-0.5 * (distance[rows] / ring) ** 2)
            offset = (cloud.xy[near[rows]] - cloud.xy[rows, None]) / ring
            inner[rows] = np.linalg.norm(offset.mean(axis=1), axis=1) < EDGE
            design = np.concatenate([np.ones((*offset.shape[:2], 1)), offset], axis=2)  # (rows, k, 3)
            weighted = design * weight[..., None]
            normal = np.einsum("ika,ikb->iab", weighted, design)
            # spots on a line leave one slope open; the ridge holds it at 0
            normal += 1e-3 * np.diag([0.0, 1.0, 1.0])
            right = np.einsum("ika,ikc->iac", weighted, cloud.values[near[rows]])
            fitted = np.linalg.solve(normal, right)
            value[rows], slope[rows] = fitted[:, 0], fitted[:, 1:] / ring
        if not erode or inner.mean() < 0.5:
            inner[:] = True
        return cls(xy=cloud.xy, value=value, slope=slope, ring=ring, tree=tree, inner=inner)

    def read(self, xy: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]:
        """Return which of the positions (q, 2) are covered, and value (v, c) and slope (v, 2, c) at the v that are."""
        k = min(READ_NEIGHBOURS, len(self.xy))
        distance, near = self.tree.query(xy, k=k, distance_upper_bound=2.0 * REACH * self.ring)
        covered: NDArray[np.bool_] = distance[:, 0] <= REACH * self.ring
        covered[covered] = self.inner[near[covered, 0]]
        where, distance, near = xy[covered], distance[covered], near[covered]
        weight = np.where(np.isfinite(distance), np.exp(-0.5 * (2.0 * distance / self.ring) ** 2), 0.0)
        weight /= weight.sum(axis=1, keepdims=True)
        near = np.minimum(near, len(self.xy) - 1)  # absent neighbours have weight 0
        c = self.value.shape[1]
        value, slope = np.empty((len(where), c)), np.empty((len(where), 2, c))
        step = max(1, BLOCK // (k * c))
        for lo in range(0, len(where), step):
            rows = slice(lo, lo + step)
            w, j = weight[rows], near[rows]
            slopes = self.slope[j]  # (rows, k, 2, c)
            offset = where[rows, None] - self.xy[j]
            slope[rows] = np.einsum("ik,ikac->iac", w, slopes)
            value[rows] = np.einsum("ik,ikc->ic", w, self.value[j]) + np.einsum("ik,ika,ikac->ic", w, offset, slopes)
        return covered, value, slope

    def lies(self, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Say which of the positions (q, 2) have a point nearby that counts, (q,)."""
        distance, near = self.tree.query(xy)
        held: NDArray[np.bool_] = (distance <= REACH * self.ring) & self.inner[near]
        return held

    def covers(self, xy: NDArray[np.float64]) -> float:
        """Share of the positions (q, 2) with a point nearby, on the edge or not."""
        return float(np.mean(self.tree.query(xy)[0] <= REACH * self.ring))
