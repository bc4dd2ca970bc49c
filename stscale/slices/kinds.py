"""Where slices lie beside each other on the principal axes, when they do not hold the same tissue.

Around its own mean, a slice that lacks a kind of tissue lies elsewhere than one that has it, and the kinds that both
have lie apart. Around the common mean these lie together, unless slices differ as a whole, as those of several donors
or days do. Here slices are moved so that they come close to kinds that they share, with k-means whose rows are moved
(`stscale.slices.shared_kinds`): few kinds first, then more, from where slices lie around the common mean. Slices that
share no kind are left there.

Moves could also lay different tissue on each other. They count only where kinds and moves found on some pieces of every
slice bring its other pieces closer to their kind than the kinds of slices around their own means do: by over `GAIN` of
all slices, or by over `OWN` of one in each search, which may be the only one among many that holds something else.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stscale.slices.shared_kinds import Search, beside, nearest
from stscale.slices.surroundings import Surroundings

TELL = Search(steps=(10, 20), starts=2, close=1e-3)
"""The search that tells whether to move."""

KEEP = Search(steps=TELL.steps, starts=8, close=1e-4)
"""The search whose moves are kept."""

GAIN = 0.01
"""Least share of what rows left out vary within kinds that a move must take away."""

OWN = 0.1
"""The same of one slice in every search, where that of all is less: of a small slice the mean could be chance."""

PIECES = (6, 8, 10)
"""Pieces along the Hilbert curve that a slice is cut into, every second of which is left out."""

REPEATS = 3
"""Searches of every cut."""

FEWEST = 100
"""Averages, in all or of one slice, below which nobody looks."""

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
        (K, p) float64, m; K = 0 where slices keep their means.
    move
        (s, p) float64, d, what is added to the scores of a slice around its own mean; 0 where slices keep it.
    gain
        What moves take away of the variance within kinds of rows left out, at most 1; NaN where nobody looked.
    own
        (s,) the same of each slice, the least of all searches.
    """

    centres: NDArray[np.float64]
    move: NDArray[np.float64]
    gain: float
    own: NDArray[np.float64]

    @classmethod
    def none(cls, slices: int, p: int) -> "Kinds":
        """Return that of slices that keep where they lie."""
        unseen = np.full(slices, np.nan)
        return cls(centres=np.zeros((0, p)), move=np.zeros((slices, p)), gain=float("nan"), own=unseen)

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

    Returns
    -------
    Kinds
        Without kinds and moves where slices keep their means.
    """
    stay = Kinds.none(*apart.shape)
    if len(rows) < FEWEST or len(apart) == 1:
        return stay
    gain, own = _gains(rows, group, apart, seed)
    large = np.bincount(group, minlength=len(apart)) >= FEWEST
    if not (gain > GAIN or (own[large] > OWN).any()):
        return replace(stay, gain=gain, own=own)
    found = KEEP.moved(rows, group, apart, seed)
    # all slices together may lie anywhere: the mean of all rows stays where it is
    middle = np.bincount(group, minlength=len(apart)) @ found.move / len(rows)
    return Kinds(centres=found.centres - middle, move=found.move - middle, gain=gain, own=own)


def beside_kinds(rows: NDArray[np.float64], known: Kinds, apart: NDArray[np.float64]) -> Kinds:
    """Move a new slice to the kinds that others were moved to.

    It is not asked whether that is worth it: a slice of other tissue altogether comes closer to its nearest kinds, too.

    Parameters
    ----------
    rows
        (m, p) as in `find_kinds`, of one slice.
    known
        The kinds, which stay.
    apart
        (p,) the slice's own mean, around the common one of the others.
    """
    if len(rows) < FEWEST:
        return Kinds.none(1, len(apart))
    return replace(Kinds.none(1, len(apart)), centres=known.centres, move=beside(rows, known.centres, apart)[None])


def _gains(
    rows: NDArray[np.float64], group: NDArray[np.integer], apart: NDArray[np.float64], seed: int
) -> tuple[float, NDArray[np.float64]]:
    """Return how much closer rows left out are to their kind where slices are moved, and those of each slice (s,).

    The first is the mean over several cuts and starts, the others are the least.
    """
    found, s = [], len(apart)
    for pieces in PIECES:
        out = _left_out(group, pieces)
        for repeat in range(REPEATS):
            before, after = np.zeros(s), np.zeros(s)
            for half in (out, ~out):
                seen, which, other, whose = rows[~half], group[~half], rows[half], group[half]
                first = seed + TELL.starts * repeat
                stay = TELL.kept(seen, which, np.zeros_like(apart), first)
                fit = TELL.moved(seen, which, apart, first)
                before += np.bincount(whose, nearest(other, stay.centres)[1], s)
                after += np.bincount(whose, nearest(other + fit.move[whose], fit.centres)[1], s)
            before, after = np.append(before, before.sum()), np.append(after, after.sum())
            found.append(1.0 - np.divide(after, before, out=np.full(s + 1, np.nan), where=before > 0))
    return float(np.mean(found, axis=0)[-1]), np.min(found, axis=0)[:-1]


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
        (m, p) float64, about `AVERAGES` at most and `FEWEST` of a slice at least, in the order of the rows.
    group
        (m,) int64, their slices.
    """
    rows, group = [], []
    n = int(offsets[-1])
    for i, (lo, hi) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        parts = _windows(lo, hi)
        looked = sum(end - start for start, end in parts)
        wanted = max(AVERAGES * (hi - lo) // n, 1)
        # every slice has enough to be looked at by itself, be they many or small
        every = max(1, min(max(min(EVERY, n // MANY), -(-looked // wanted)), looked // FEWEST))
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
