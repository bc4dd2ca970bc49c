"""How far around a spot the tissue tells what is in it, from the components alone.

Rows y are predicted by averages over the spatial graph, A the mean over a spot and its neighbours and r rounds of it.
What a spot says of itself is left out by generalised cross-validation,

    V(r) = Σ_i ‖y_i − (Aʳ y)_i‖² / (1 − tr(Aʳ)/n)²

Few rounds leave the noise of single spots, and the kinds of single cells, in the prediction; many blur borders. Where
domains are told apart by expression, two rounds are enough, and more blur them although V falls a little still. Where
they differ by how often kinds of cells occur, V falls further. The trace is estimated with random signs q: E qᵀAʳq.

Source: Golub, Heath and Wahba, Generalized cross-validation as a method for choosing a good ridge parameter,
Technometrics 21 (1979), 215-223; Hutchinson, A stochastic estimator of the trace of the influence matrix for Laplacian
smoothing splines, Commun. Stat. Simul. Comput. 18 (1989), 1059-1076.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

TRIED = (1, 2, 3, 4, 6, 8, 12, 16)
"""Rounds of averaging that are compared."""

ENOUGH = 0.02
"""Share of the least V by which fewer rounds may miss it. Visium and simulated layers are within with two rounds."""

WINDOW, WINDOWS = 16_384, 4
"""Rows looked at together, in Hilbert order one piece of tissue each, and how many such pieces at most."""

PROBES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Prediction of spots from their surroundings.

    Attributes
    ----------
    losses
        V(r) over its least value, by rounds r.
    rounds
        The fewest rounds whose V is within `ENOUGH` of the least.
    """

    losses: dict[int, float]
    rounds: int


def spatial_scale(
    read: Callable[[int, int], NDArray[np.floating]],
    indptr: NDArray[np.integer],
    indices: NDArray[np.integer],
    *,
    seed: int,
) -> Scale:
    """Compare rounds of averaging by how well surroundings predict a spot.

    Parameters
    ----------
    read
        Rows lo to hi of the components, (hi − lo, p), in Hilbert order within each slice.
    indptr, indices
        (n + 1,) and (E,) the spatial graph in CSR form. Edges out of a window of rows are left out.
    seed
        Of the random signs.
    """
    n = len(indptr) - 1
    rng = np.random.default_rng(seed)
    residual, trace, rows = np.zeros(len(TRIED)), np.zeros(len(TRIED)), 0
    for lo, hi in _windows(n):
        mean = _mean(indptr, indices, lo, hi)
        y = np.asarray(read(lo, hi), dtype=np.float64)
        signs = rng.choice([-1.0, 1.0], size=(hi - lo, PROBES))
        near, probe = y, signs
        for r in range(1, TRIED[-1] + 1):
            near, probe = mean @ near, mean @ probe
            if r in TRIED:
                at = TRIED.index(r)
                residual[at] += np.sum((y - near) ** 2)
                trace[at] += np.sum(signs * probe) / PROBES
        rows += hi - lo
    own = np.clip(trace / rows, 0.0, 1.0)
    # where nothing is near anything, a spot is its own average and nothing is predicted
    loss = np.where(own < 1.0 - 1e-9, residual / np.maximum(1.0 - own, 1e-9) ** 2, np.inf)
    least = float(loss.min())
    if not np.isfinite(least) or least <= 0.0:
        return Scale(losses=dict.fromkeys(TRIED, 1.0), rounds=TRIED[0])
    shares = {r: float(v / least) for r, v in zip(TRIED, loss, strict=True)}
    return Scale(losses=shares, rounds=next(r for r in TRIED if shares[r] <= 1.0 + ENOUGH))


def _windows(n: int) -> list[tuple[int, int]]:
    """Ranges of rows, evenly over all; everything where it fits."""
    if n <= WINDOW * WINDOWS:
        ends = np.linspace(0, n, -(-n // WINDOW) + 1).astype(int).tolist()
        return list(pairwise(ends))
    starts = np.linspace(0, n - WINDOW, WINDOWS).astype(int).tolist()
    return [(lo, lo + WINDOW) for lo in starts]


def _mean(indptr: NDArray[np.integer], indices: NDArray[np.integer], lo: int, hi: int) -> sparse.csr_matrix:
    """Mean over each row from `lo` to `hi` and its neighbours among these, (hi − lo, hi − lo)."""
    count = np.diff(indptr[lo : hi + 1])
    column = np.asarray(indices[indptr[lo] : indptr[hi]])
    row = np.repeat(np.arange(hi - lo), count)
    inside = (column >= lo) & (column < hi)
    own = np.arange(hi - lo)
    rows, columns = np.concatenate([row[inside], own]), np.concatenate([column[inside] - lo, own])
    joined = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(hi - lo, hi - lo))
    return sparse.diags(1.0 / np.asarray(joined.sum(axis=1)).ravel()) @ joined
