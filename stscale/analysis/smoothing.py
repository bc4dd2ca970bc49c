"""Majority smoothing of domain labels over the spatial graph."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stscale.errors import InputError

ROWS = 65_536
"""Spots whose votes are counted at once."""


def smooth_labels(
    labels: NDArray[np.integer],
    indptr: NDArray[np.integer],
    indices: NDArray[np.integer],
    rounds: int = 1,
) -> NDArray[np.int32]:
    """Give every spot the majority label of its spatial neighbours and itself.

    All spots change together in a round. A spot keeps its label when that is among the tied winners; between
    other winners the smallest number wins. Missing labels (−1) do not vote and stay missing. A self-loop of the
    graph counts as the spot's own vote, not as a second one.

    Parameters
    ----------
    labels
        (n,) int, −1 where missing.
    indptr, indices
        (n + 1,) and (E,) the graph in CSR form.
    rounds
        Rounds of voting; 0 returns a copy.

    Returns
    -------
    NDArray
        (n,) int32.

    Raises
    ------
    InputError
        A graph of another number of spots, or labels below −1.
    """
    n = len(labels)
    if len(indptr) != n + 1:
        raise InputError(f"graph has {len(indptr) - 1} spots and there are {n} labels; expected the same number")
    current = np.array(labels, dtype=np.int32)
    if n == 0 or current.max() < 0:
        return current
    if current.min() < -1:
        raise InputError(f"label {current.min()} found; expected 0, 1, … or −1 for missing")
    for _ in range(rounds):
        following = current.copy()
        for lo in range(0, n, ROWS):
            hi = min(lo + ROWS, n)
            following[lo:hi] = _vote(current, indptr, indices, lo, hi)
        current = following
    return current


def _vote(
    labels: NDArray[np.int32], indptr: NDArray[np.integer], indices: NDArray[np.integer], lo: int, hi: int
) -> NDArray[np.int32]:
    """Winners of rows lo … hi."""
    k, rows = int(labels.max()) + 1, hi - lo
    row = np.repeat(np.arange(rows), np.diff(indptr[lo : hi + 1]))
    neighbor = indices[indptr[lo] : indptr[hi]]
    vote = labels[neighbor]
    counted = (vote >= 0) & (neighbor != row + lo)
    count = np.bincount(row[counted] * k + vote[counted], minlength=rows * k).reshape(rows, k)
    own = labels[lo:hi]
    known = np.flatnonzero(own >= 0)
    count[known, own[known]] += 1
    winner = np.argmax(count, axis=1).astype(np.int32)
    kept = np.take_along_axis(count, np.maximum(own, 0)[:, None], axis=1)[:, 0] == count.max(axis=1)
    return np.where((own < 0) | kept, own, winner).astype(np.int32)
