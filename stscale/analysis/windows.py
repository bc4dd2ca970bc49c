"""Pieces of tissue that are looked at in place of all of it, with the mean over what lies around each spot."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

WINDOW, WINDOWS = 16_384, 4
"""Rows looked at together, in Hilbert order one piece of tissue each, and how many such pieces at most."""


def windows(n: int) -> list[tuple[int, int]]:
    """Return ranges of n rows, evenly over all of them; everything where it fits."""
    if n <= WINDOW * WINDOWS:
        ends = np.linspace(0, n, -(-n // WINDOW) + 1).astype(int).tolist()
        return list(pairwise(ends))
    starts = np.linspace(0, n - WINDOW, WINDOWS).astype(int).tolist()
    return [(lo, lo + WINDOW) for lo in starts]


def mean_around(
    indptr: NDArray[np.integer], indices: NDArray[np.integer], lo: int, hi: int, *, itself: bool
) -> sparse.csr_matrix:
    """Return the mean over the neighbours of each row from `lo` to `hi`, as a matrix (hi − lo, hi − lo).

    Parameters
    ----------
    indptr, indices
        (n + 1,) and (E,) the spatial graph in CSR form. Edges out of the window and loops are left out.
    lo, hi
        The window.
    itself
        Whether a row counts among its neighbours. Where it does not, a row without any is empty.
    """
    size = hi - lo
    column = np.asarray(indices[indptr[lo] : indptr[hi]]) - lo
    row = np.repeat(np.arange(size), np.diff(indptr[lo : hi + 1]))
    kept = (column >= 0) & (column < size) & (column != row)
    row, column = row[kept], column[kept]
    if itself:
        own = np.arange(size)
        row, column = np.concatenate([row, own]), np.concatenate([column, own])
    joined = sparse.csr_matrix((np.ones(len(row)), (row, column)), shape=(size, size))
    count = np.asarray(joined.sum(axis=1)).ravel()
    return sparse.csr_matrix(sparse.diags(1.0 / np.maximum(count, 1.0)) @ joined)
