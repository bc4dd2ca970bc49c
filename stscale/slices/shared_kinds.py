"""k-means of rows whose groups are moved: kinds that groups share, and where each group lies beside them.

The least of Σ_i |y_i + d_g(i) − m_k(i)|² over assignments k, kinds m (K, p) and moves d (s, p) of rows y (p,) in groups
g. Given assignments, with N_sk rows of group s in kind k, sums n_s and n_k and means ȳ_sk, kinds are means and moves
change by δ, where

    (diag(n_s) − N diag(1 / n_k) Nᵀ) δ = r,   r_s = Σ_k N_sk (m_k − ȳ_sk)

so that a group goes where the kinds it shares lead, however much of each it has.

Source: Lloyd, Least squares quantization in PCM, IEEE Trans. Inf. Theory 28 (1982), 129-137, with the additive effects
of a two-way layout of unequal numbers, e.g. Searle, Linear Models for Unbalanced Data (1987), 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

LOOPS = 100
"""Rounds of a start at most."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fit:
    """What a search found.

    Attributes
    ----------
    centres
        (K, p) float64, m.
    move
        (s, p) float64, d.
    left
        Sum of the squared distances of all rows from their kind.
    """

    centres: NDArray[np.float64]
    move: NDArray[np.float64]
    left: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """How long is searched.

    Attributes
    ----------
    steps
        Numbers of kinds, one after another, each from where groups lie after the one before; without moves the last.
    starts
        Of each.
    close
        Relative gain that ends a start.
    """

    steps: Sequence[int]
    starts: int
    close: float

    def kept(self, rows: NDArray[np.float64], group: NDArray[np.integer], at: NDArray[np.float64], seed: int) -> Fit:
        """Return the best kinds (k-means++ starts) of rows (m, p) in groups (m,) that stay at `at` (s, p)."""
        k = self.steps[-1]
        found = [_from(rows, group, at, k, seed + start, self.close, move=False) for start in range(self.starts)]
        return min(found, key=lambda fit: fit.left)

    def moved(self, rows: NDArray[np.float64], group: NDArray[np.integer], at: NDArray[np.float64], seed: int) -> Fit:
        """Return the best kinds and moves, from `at` on."""
        best = Fit(centres=np.zeros((0, rows.shape[1])), move=at, left=np.inf)
        for k in self.steps:
            found = [
                _from(rows, group, best.move, k, seed + start, self.close, move=True) for start in range(self.starts)
            ]
            best = min(found, key=lambda fit: fit.left)
        return best


def beside(rows: NDArray[np.float64], centres: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return where one group (m, p) lies beside kinds (K, p) that stay, (p,), from `at` (p,) on."""
    last = np.inf
    for _ in range(LOOPS):
        label, apart = nearest(rows + at, centres)
        left = float(apart.sum())
        if left >= last:
            break
        last = left
        at = (centres[label] - rows).mean(axis=0)
    return at


def _from(
    rows: NDArray[np.float64],
    group: NDArray[np.integer],
    at: NDArray[np.float64],
    k: int,
    seed: int,
    close: float,
    *,
    move: bool,
) -> Fit:
    from sklearn.cluster import kmeans_plusplus

    centres = kmeans_plusplus(rows + at[group], min(k, len(rows)), random_state=seed)[0]
    return _lloyd(rows, group, at, centres, close, move=move)


def _lloyd(
    rows: NDArray[np.float64],
    group: NDArray[np.integer],
    at: NDArray[np.float64],
    centres: NDArray[np.float64],
    close: float,
    *,
    move: bool,
) -> Fit:
    s, (m, p), k = len(at), rows.shape, len(centres)
    moved, last, left = rows + at[group], np.inf, np.inf
    for _ in range(LOOPS):
        label, apart = nearest(moved, centres)
        left = float(apart.sum())
        if last - left <= close * left:
            break
        last = left
        cell = group * k + label
        count = np.bincount(cell, minlength=s * k).reshape(s, k).astype(np.float64)
        of_cell = sparse.csr_matrix((np.ones(m), (cell, np.arange(m))), shape=(s * k, m))
        total = (of_cell @ moved).reshape(s, k, p)
        of_kind = count.sum(axis=0)
        mean = total.sum(axis=0) / np.maximum(of_kind, 1.0)[:, None]
        if move:
            change = step(count, total)
            at, mean = at + change, mean + (count.T @ change) / np.maximum(of_kind, 1.0)[:, None]
            moved = rows + at[group]
        centres = np.where(of_kind[:, None] > 0, mean, centres)
    return Fit(centres=centres, move=at, left=left)


def step(count: NDArray[np.float64], total: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the changes δ (s, p), of counts (s, K) and sums (s, K, p) of the rows of each group in each kind."""
    of_kind = np.maximum(count.sum(axis=0), 1.0)
    mean = total.sum(axis=0) / of_kind[:, None]
    normal = np.diag(count.sum(axis=1)) - (count / of_kind) @ count.T
    # groups that share no kind with others have no equation: the shortest solution leaves them
    solved = np.linalg.pinv(normal, rcond=1e-6, hermitian=True) @ (count @ mean - total.sum(axis=1))
    return np.asarray(solved)


def nearest(rows: NDArray[np.float64], centres: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the nearest centre (K, p) of each row (m, p), and the squared distance from it, (m,) each."""
    near = np.sum(centres**2, axis=1) - 2.0 * rows @ centres.T
    label = near.argmin(axis=1)
    left = near[np.arange(len(rows)), label] + np.sum(rows**2, axis=1)
    return label, np.maximum(left, 0.0)
