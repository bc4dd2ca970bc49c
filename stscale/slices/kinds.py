"""Where slices lie beside each other on the principal axes, when they do not hold the same tissue.

Around its own mean, a slice that lacks a kind of tissue lies elsewhere than one that has it, and the kinds that both
have lie apart. Around the common mean these lie together, unless slices differ as a whole, as those of several donors
or days do. Here the rows y (p,) of a slice are moved by d_s so that they come close to kinds that slices share: the
least

    Σ_i |y_i + d_s(i) − m_k(i)|²

over assignments k, kinds m (K, p) and moves d (s, p). Given assignments, with N_sk rows of slice s in kind k, sums n_s
and n_k and means ȳ_sk, kinds are means and moves change by δ, where

    (diag(n_s) − N diag(1 / n_k) Nᵀ) δ = r,   r_s = Σ_k N_sk (m_k − ȳ_sk)

so that a slice goes where the kinds it shares lead, however much of each it has. Slices that share none are left where
they are. Few kinds come first, then more, from where slices lie around the common mean.

Moves could also lay different tissue on each other. They count only where kinds and moves found on some pieces of every
slice bring its other pieces closer to their kind than the kinds of slices around their own means do, by over `GAIN`.

Source: k-means, Lloyd, IEEE Trans. Inf. Theory 28 (1982), 129-137, with additive effects of slices as in a two-way
layout of unequal numbers, e.g. Searle, Linear models for unbalanced data (1987), 4.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stscale.slices.surroundings import Surroundings

STEPS = (10, 20)
"""Kinds, of every round of the search."""

GAIN = 0.01
"""Least share of what rows left out vary within kinds that a move must take away."""

PIECES = (6, 8, 10)
"""Pieces along the Hilbert curve that a slice is cut into, every second of which is left out."""

STARTS, REPEATS = 4, 3
"""Starts of a search, and how often every cut is looked at."""

LOOPS, CLOSE = 100, 1e-5
"""Rounds of a search at most, and the relative gain that ends it."""

FEWEST = 100
"""Averages below which nobody looks."""

AVERAGES, EVERY, MANY = 8192, 4, 3000
"""Averages in all, of every how many spots one, and how many there are at least before spots are left out."""

WINDOW, WINDOWS = 512, 16
"""Rows looked at together, and in how many places of a slice that is larger than all of these."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Kinds:
    """Kinds of tissue on the axes, and slices beside them.

    Attributes
    ----------
    centres
        (K, p) float64, m; K = 0 where they were not looked for.
    move
        (s, p) float64, d, what is added to the scores of a slice around its own mean; 0 where slices keep theirs.
    gain
        What moves take away of the variance within kinds of rows left out, at most 1; NaN where nobody looked.
    """

    centres: NDArray[np.float64]
    move: NDArray[np.float64]
    gain: float

    @classmethod
    def none(cls, slices: int, p: int) -> "Kinds":
        """Return that of slices that keep where they lie."""
        return cls(centres=np.zeros((0, p)), move=np.zeros((slices, p)), gain=float("nan"))

    def notes(self) -> tuple[str, ...]:
        """Return what the user should know, a sentence or none."""
        if not self.moved:
            return ()
        return (
            "slices hold kinds of tissue in unequal shares: they lie beside each other by the kinds they share, not by "
            f"their means ({100 * self.gain:.1f} % closer in pieces left out; preprocess.center = 'slice' keeps means)",
        )

    @property
    def moved(self) -> bool:
        """Whether slices were moved."""
        return bool(self.move.any())


def find_kinds(
    rows: NDArray[np.float64], group: NDArray[np.integer], apart: NDArray[np.float64], *, seed: int
) -> Kinds:
    """Find kinds, and move the slices where that is worth it.

    Parameters
    ----------
    rows
        (m, p) scores around the slices' own means, averaged over spots near each other, in the order of the tissue.
    group
        (m,) slice of each row.
    apart
        (s, p) the slices' own means, around the common one.
    seed
        Of the starts.
    """
    stay = np.zeros_like(apart)
    if len(rows) < FEWEST:
        return Kinds.none(*apart.shape)
    own = _search(rows, group, stay, seed, move=False)
    gain = _gain(rows, group, apart, seed) if len(apart) > 1 else float("nan")
    if not gain > GAIN:
        return Kinds(centres=own.centres, move=stay, gain=gain)
    found = _search(rows, group, apart, seed, move=True)
    # all slices together may lie anywhere: the mean of all rows stays where it is
    middle = np.bincount(group, minlength=len(apart)) @ found.move / len(rows)
    return Kinds(centres=found.centres - middle, move=found.move - middle, gain=gain)


def beside_kinds(rows: NDArray[np.float64], known: Kinds, apart: NDArray[np.float64]) -> Kinds:
    """Move a slice to the kinds of others: where that is worth it, and always where these were moved themselves.

    Parameters
    ----------
    rows
        (m, p) as in `find_kinds`, of one slice.
    known
        The kinds, which stay.
    apart
        (p,) the slice's own mean, around the common one of the others.
    """
    centres = known.centres
    if len(rows) < FEWEST or len(centres) == 0:
        return Kinds.none(1, len(apart))
    before = after = 0.0
    for pieces in PIECES:
        out = _left_out(np.zeros(len(rows), dtype=np.int64), pieces)
        for half in (out, ~out):
            d = _beside(rows[~half], centres, apart)
            before += _nearest(rows[half], centres)[1]
            after += _nearest(rows[half] + d, centres)[1]
    gain = 1.0 - after / max(before, 1e-300)
    move = _beside(rows, centres, apart) if known.moved or gain > GAIN else np.zeros_like(apart)
    return Kinds(centres=centres, move=move[None], gain=gain)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Fit:
    centres: NDArray[np.float64]
    move: NDArray[np.float64]
    left: float


def _gain(rows: NDArray[np.float64], group: NDArray[np.integer], apart: NDArray[np.float64], seed: int) -> float:
    """Return how much closer rows left out are to their kind where slices are moved, over several cuts and starts."""
    found = []
    for pieces in PIECES:
        out = _left_out(group, pieces)
        for repeat in range(REPEATS):
            before = after = 0.0
            for half in (out, ~out):
                seen, which, other = rows[~half], group[~half], rows[half]
                first = seed + STARTS * repeat
                stay = _search(seen, which, np.zeros_like(apart), first, move=False)
                fit = _search(seen, which, apart, first, move=True)
                before += _nearest(other, stay.centres)[1]
                after += _nearest(other + fit.move[group[half]], fit.centres)[1]
            found.append(1.0 - after / max(before, 1e-300))
    return float(np.mean(found))


def _search(
    rows: NDArray[np.float64], group: NDArray[np.integer], move_: NDArray[np.float64], seed: int, *, move: bool
) -> _Fit:
    """Return the best of several starts; with `move` few kinds first, then more from where the slices lie then."""
    fit = _Fit(centres=np.zeros((0, rows.shape[1])), move=move_, left=np.inf)
    for k in STEPS if move else STEPS[-1:]:
        starts = [_lloyd(rows, group, fit.move, k, seed + start, move=move) for start in range(STARTS)]
        fit = min(starts, key=lambda f: f.left)
    return fit


def _lloyd(
    rows: NDArray[np.float64],
    group: NDArray[np.integer],
    at: NDArray[np.float64],
    k: int,
    seed: int,
    *,
    move: bool,
) -> _Fit:
    from sklearn.cluster import kmeans_plusplus

    s, (m, p) = len(at), rows.shape
    moved = rows + at[group]
    centres = kmeans_plusplus(moved, min(k, m), random_state=seed)[0]
    k, last = len(centres), np.inf
    for _ in range(LOOPS):
        label, left = _nearest(moved, centres)
        if last - left <= CLOSE * left:
            break
        last = left
        cell = group * k + label
        count = np.bincount(cell, minlength=s * k).reshape(s, k).astype(np.float64)
        total = (sparse.csr_matrix((np.ones(m), (cell, np.arange(m))), shape=(s * k, m)) @ moved).reshape(s, k, p)
        of_kind = np.maximum(count.sum(axis=0), 1.0)
        mean = total.sum(axis=0) / of_kind[:, None]
        if move:
            step = _step(count, total, mean)
            at, mean = at + step, mean + (count.T @ step) / of_kind[:, None]
            moved = rows + at[group]
        centres = np.where(count.sum(axis=0)[:, None] > 0, mean, centres)
    return _Fit(centres=centres, move=at, left=left)


def _step(count: NDArray[np.float64], total: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the moves (s, p) that least squares tells, of counts (s, K) and sums (s, K, p) of each slice's kinds."""
    of_kind = np.maximum(count.sum(axis=0), 1.0)
    normal = np.diag(count.sum(axis=1)) - (count / of_kind) @ count.T
    # slices that share no kind with others have no equation: the shortest solution leaves them
    solved = np.linalg.pinv(normal, rcond=1e-6, hermitian=True) @ (count @ mean - total.sum(axis=1))
    return np.asarray(solved)


def _beside(rows: NDArray[np.float64], centres: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    last = np.inf
    for _ in range(LOOPS):
        label, left = _nearest(rows + at, centres)
        if last - left <= CLOSE * left:
            break
        last = left
        at = (centres[label] - rows).mean(axis=0)
    return at


def _nearest(rows: NDArray[np.float64], centres: NDArray[np.float64]) -> tuple[NDArray[np.intp], float]:
    """Nearest centre of each row, and the sum of squared distances."""
    near = np.sum(centres**2, axis=1) - 2.0 * rows @ centres.T
    label = near.argmin(axis=1)
    left = near[np.arange(len(rows)), label] + np.sum(rows**2, axis=1)
    return label, float(np.sum(np.maximum(left, 0.0)))


def _left_out(group: NDArray[np.integer], pieces: int) -> NDArray[np.bool_]:
    """Say which rows lie in the second, fourth, … piece of their slice."""
    out = np.empty(len(group), dtype=bool)
    for i in np.unique(group):
        own = np.flatnonzero(group == i)
        out[own] = (np.arange(len(own)) * pieces // len(own)) % 2 == 1
    return out


def averages(
    read: Callable[[int, int], NDArray[np.float32]], xy: NDArray[np.float64], offsets: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Average scores over each spot and those around it, of some spots of every slice.

    Parameters
    ----------
    read
        Scores (hi - lo, p) of the rows lo to hi.
    xy
        (n, 2 or 3) where the spots are.
    offsets
        (s + 1,) first row of each slice.

    Returns
    -------
    rows
        (m, p) float64, at most about `AVERAGES`, in the order of the rows.
    group
        (m,) int64, their slices.
    """
    rows, group = [], []
    n = int(offsets[-1])
    for i, (lo, hi) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        parts = _windows(lo, hi)
        looked = sum(end - start for start, end in parts)
        wanted = max(AVERAGES * (hi - lo) // n, 1)
        every = max(1, min(EVERY, n // MANY), -(-looked // wanted))
        for start, end in parts:
            part = Surroundings(every)
            scores = sparse.csr_matrix(read(start, end).astype(np.float64))
            for found in (*part.add(i, scores, xy[start:end]), *part.rest()):
                rows.append(found.rows.toarray())
                group.append(np.full(found.rows.shape[0], i, dtype=np.int64))
    return np.concatenate(rows), np.concatenate(group)


def _windows(lo: int, hi: int) -> list[tuple[int, int]]:
    """Return ranges of a slice's rows: all, or windows evenly over them."""
    if hi - lo <= WINDOW * WINDOWS:
        return [(lo, hi)]
    starts = np.linspace(lo, hi - WINDOW, WINDOWS).astype(int).tolist()
    return [(start, start + WINDOW) for start in starts]
