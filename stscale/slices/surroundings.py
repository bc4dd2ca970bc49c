"""Spots averaged with those around them, as rows come: what the principal axes are of.

An average x_b = Σ_i w_bi y_i over a spot, its nearest spots and theirs has a share κ_b = Σ_i w_bi² of the noise of one
spot, and what neighbours have in common is all in it. Averages of spots close to each other hold the same: every
fourth is enough. Rows of a slice come in the order of the Hilbert curve, so that a window of them is a patch of tissue;
neighbours are looked for in the window.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

NEIGHBORS = 6
ROUNDS = 2
WINDOW = 1024
"""Rows of a window at least; the last of a slice has up to twice as many."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Averages:
    """Averages of one window.

    Attributes
    ----------
    slice
        Its number.
    rows
        (b, g) float64 csr_matrix, x_b.
    noise
        Σ_b κ_b, in [0, b].
    """

    slice: int
    rows: sparse.csr_matrix
    noise: float


class Surroundings:
    """Windows of rows, whatever blocks these come in.

    Parameters
    ----------
    every
        One of so many averages is made.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self._slice = -1
        self._rows: list[sparse.csr_matrix] = []
        self._xy: list[NDArray[np.float64]] = []

    def add(self, i: int, rows: sparse.csr_matrix, xy: NDArray[np.float64]) -> Iterator[Averages]:
        """Take the next rows (k, g) and coordinates (k, 2 or 3) of slice `i`, slices one after another.

        Yields
        ------
        Averages
            Of the windows that are complete.
        """
        if i != self._slice:
            yield from self.rest()
            self._slice = i
        self._rows.append(rows)
        self._xy.append(xy)
        if sum(map(len, self._xy)) < 2 * WINDOW:
            return
        held, places = self._take()
        lo = 0
        while len(places) - lo >= 2 * WINDOW:
            yield self._averages(held[lo : lo + WINDOW], places[lo : lo + WINDOW])
            lo += WINDOW
        # copies: rows that wait must not hold the block they came with
        self._rows, self._xy = [held[lo:].copy()], [places[lo:].copy()]

    def rest(self) -> Iterator[Averages]:
        """Yield the averages of the rows that wait, the last of their slice."""
        if self._rows:
            yield self._averages(*self._take())

    def _take(self) -> tuple[sparse.csr_matrix, NDArray[np.float64]]:
        held, places = sparse.vstack(self._rows, format="csr"), np.concatenate(self._xy)
        self._rows, self._xy = [], []
        return held, places

    def _averages(self, rows: sparse.csr_matrix, xy: NDArray[np.float64]) -> Averages:
        once = _weights(xy)
        weights = once[:: self.every]
        for _ in range(ROUNDS - 1):
            weights = weights @ once
        noise = float(weights.multiply(weights).sum())
        return Averages(slice=self._slice, rows=weights @ rows.astype(np.float64), noise=noise)


def _weights(xy: NDArray[np.float64]) -> sparse.csr_matrix:
    """Mean over each spot and its nearest, (n, n)."""
    from scipy.spatial import cKDTree

    n = len(xy)
    k = min(NEIGHBORS + 1, n)
    # several spots in one place: any k of them, itself or not
    near = np.asarray(cKDTree(xy).query(xy, k=k)[1]).reshape(n, k)
    near.sort(axis=1)
    return sparse.csr_matrix((np.full(n * k, 1.0 / k), near.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n))
