"""How far the latents of a new slice lie from those a model was trained on: a confidence per spot, a verdict per slice.

The distance of a spot is the mean Euclidean distance to its nearest latents in a bank, a subsample of the training
spots. Some Hilbert tiles of the training slices are held out of the bank. Their distances, measured as those of a new
slice are (a held-out spot does not see the bank's latents of its own slice, where the run has others), say what is
usual:

    confidence(x) = (1 + #{held-out distances ≥ x}) / (1 + #held-out)

the p value of conformal prediction: uniform on (0, 1) for a slice that is to the training slices what they are to each
other (Vovk et al., Algorithmic Learning in a Random World, 2005).
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from stscale.errors import InputError
from stscale.graphs.neighbors import search

BANK = 20_000
"""Training latents kept, at most."""

HELD_OUT = 5_000
"""Held-out training spots whose distances are measured, at most."""

SHARE = 0.1
"""Share of the tiles of each slice that are held out."""

NEIGHBORS = 10
"""Nearest latents whose distances are averaged."""

UNUSUAL = 0.05
"""A spot of lower confidence lies outside of what was trained on."""

NOVEL_SHARE = 0.25
"""A slice with a larger share of such spots is novel; five times what is expected."""

NOVEL_CONFIDENCE = 0.15
"""A slice whose median spot is of lower confidence is novel, however few of its spots lie far outside: cortex with gene
names or places permuted has 0.02 to 0.08, with 5 % of its genes 0.33, whole 0.57 to 0.79."""

NOVEL_PROFILE = 0.5
"""A slice whose mean profile correlates less with that of every training slice is novel."""

NOVEL_SPREAD = 0.1
"""A slice whose latents vary less than this, relative to the least of the training slices, is novel: the network finds
nothing in it that it knows."""

ROWS = 65_536


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bank:
    """Training latents to compare with, and what distances are usual.

    Attributes
    ----------
    latents
        (m, d) float32.
    usual
        (q,) float64, ascending distances of held-out training spots.
    spread
        (s,) float64, total variance of the latents of each training slice.
    between_slices
        Whether held-out spots were compared with other slices only.
    """

    latents: NDArray[np.float32]
    usual: NDArray[np.float64]
    spread: NDArray[np.float64]
    between_slices: bool

    @classmethod
    def build(
        cls, latents: NDArray[np.float32], slice_: NDArray[np.integer], *, tile: int, seed: int, share: float = SHARE
    ) -> "Bank":
        """Draw bank and held-out tiles.

        Parameters
        ----------
        latents
            (n, d) float32 of the training spots, slice after slice, each in Hilbert order; may be mapped from disk.
        slice_
            (n,) slice of each, ascending from 0.
        tile
            Consecutive spots that are held out together.
        seed
            Of what is drawn.
        share
            Of the tiles of each slice that are held out, in (0, 1); at least one tile.

        Raises
        ------
        InputError
            If a single slice has only one tile: nothing could be held out.
        """
        rng = np.random.default_rng(seed)
        ends = np.concatenate([[0], np.cumsum(np.bincount(slice_))])
        held = np.zeros(len(latents), dtype=bool)
        for lo, hi in pairwise(ends):
            tiles = -(-(hi - lo) // tile)
            chosen = rng.permutation(tiles)[: max(1, round(share * tiles))]
            held[lo:hi] = np.isin(np.arange(hi - lo) // tile, chosen)
        several = len(ends) > 2
        kept = _drawn(np.flatnonzero(~held) if not several or not held.all() else np.arange(len(held)), BANK, rng)
        asked = _drawn(np.flatnonzero(held), HELD_OUT, rng)
        base, query = latents[kept], latents[asked]
        if len(base) == 0:
            raise InputError(f"the run has {len(latents)} spots in one tile of {tile}; too few to say what is usual")
        usual = np.empty(len(asked))
        for i in range(len(ends) - 1):
            mine = slice_[asked] == i
            others = slice_[kept] != i if several else np.ones(len(kept), dtype=bool)
            if mine.any() and others.any():
                usual[mine] = _distance(base[others], query[mine])
            else:
                usual[mine] = np.nan
        spread = [_spread(latents[lo:hi]) for lo, hi in pairwise(ends) if hi > lo]
        return cls(
            latents=base,
            usual=np.sort(usual[np.isfinite(usual)]),
            spread=np.array(spread),
            between_slices=several,
        )

    def distance(self, z: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the mean distance (m,) of latents (m, d) to their nearest in the bank, block by block."""
        out = np.empty(len(z))
        for lo in range(0, len(z), ROWS):
            out[lo : lo + ROWS] = _distance(self.latents, z[lo : lo + ROWS])
        return out

    def confidence(self, distance: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the confidence (m,) in (0, 1] of distances (m,)."""
        below = np.searchsorted(self.usual, distance, side="left")
        return np.asarray((1.0 + len(self.usual) - below) / (1.0 + len(self.usual)), dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a model knows what a slice shows.

    Attributes
    ----------
    verdict
        `"mapped"` or `"novel"`.
    outside
        Share of its spots of a confidence below `UNUSUAL`.
    confidence
        Median over its spots; 0.5 for a slice like those trained on.
    distance
        Median distance, in medians of the held-out training spots.
    spread
        Total variance of its latents, relative to the least of a training slice.
    profile
        Largest Pearson correlation of its mean log-normalised profile with that of a training slice, genes shared.
    reasons
        Why it is novel, one sentence each.
    """

    verdict: str
    outside: float
    confidence: float
    distance: float
    spread: float
    profile: float
    reasons: tuple[str, ...]


def judge(
    bank: Bank, z: NDArray[np.float32], distance: NDArray[np.float64], profile: float, *, spots: int | None = None
) -> Verdict:
    """Judge a slice by its latents.

    Parameters
    ----------
    bank
        Of the run.
    z
        (n, d) latents of the slice.
    distance
        (n,) as `Bank.distance` says.
    profile
        As in `Verdict`.
    spots
        Spots below which the spread says nothing; default 50.
    """
    confidence = bank.confidence(distance)
    outside, median = float(np.mean(confidence < UNUSUAL)), float(np.median(confidence))
    spread = _spread(z) / max(float(bank.spread.min()), 1e-300)
    reasons = []
    if outside > NOVEL_SHARE:
        reasons.append(
            f"{outside:.0%} of its spots lie further from the training latents than {1 - UNUSUAL:.0%} of held-out "
            "training spots"
        )
    if median < NOVEL_CONFIDENCE:
        reasons.append(
            f"half of its spots lie further from the training latents than {1 - median:.0%} of held-out training spots"
        )
    if profile < NOVEL_PROFILE:
        reasons.append(f"its mean expression correlates {profile:.2f} with the most similar training slice")
    if len(z) >= (50 if spots is None else spots) and spread < NOVEL_SPREAD:
        reasons.append(f"its latents vary {spread:.2f} times as much as those of the least varied training slice")
    return Verdict(
        verdict="novel" if reasons else "mapped",
        outside=outside,
        confidence=median,
        distance=float(np.median(distance) / max(float(np.median(bank.usual)), 1e-300)),
        spread=spread,
        profile=profile,
        reasons=tuple(reasons),
    )


def profile_correlation(
    own: NDArray[np.float64], known: NDArray[np.float64], shared: NDArray[np.bool_], mask: NDArray[np.bool_]
) -> float:
    """Return the largest Pearson correlation of a mean profile with those of the training slices.

    Parameters
    ----------
    own
        (g,) mean log-normalised values of the slice.
    known
        (s, g) of the training slices.
    shared
        (g,) genes the slice has.
    mask
        (s, g) genes the training slices have.
    """
    found = [
        np.corrcoef(own[m & shared], k[m & shared])[0, 1]
        for k, m in zip(known, mask, strict=True)
        if (m & shared).sum() > 2 and np.ptp(own[m & shared]) > 0 and np.ptp(k[m & shared]) > 0
    ]
    return float(max(found, default=0.0))


def _drawn(rows: NDArray[np.int64], most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return rows if len(rows) <= most else np.sort(rng.choice(rows, size=most, replace=False))


def _distance(base: NDArray[np.float32], query: NDArray[np.float32]) -> NDArray[np.float64]:
    k = min(NEIGHBORS, len(base))
    return np.asarray(search(base, query, k).distance.mean(axis=1, dtype=np.float64))


def _spread(z: NDArray[np.float32]) -> float:
    """Total variance of rows (n, d), block by block."""
    mean = np.mean(z, axis=0, dtype=np.float64)
    total = sum(float(np.sum((z[lo : lo + ROWS] - mean) ** 2)) for lo in range(0, len(z), ROWS))
    return total / len(z)
