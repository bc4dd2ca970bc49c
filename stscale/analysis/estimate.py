"""How many domains: the BIC of the tied mixture over a range of K."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stscale.analysis.mixture import TiedMixture, fit_mixture
from stscale.errors import InputError

CURVE_SPOTS = 20_000
"""Spots the curve is fitted on, drawn by the seed. More only make the criterion demand more components."""


BEYOND = 2
"""A minimum of the curve counts when so many larger K were tried; one at the very end is its wavering."""

TILE = 64
"""Consecutive rows that are resampled together: rows come in Hilbert order, so they are one piece of tissue."""

RESAMPLES = 200
SHARE = 0.9
"""Share of the resamples whose choice lies in the range that is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The criterion over K and the choice made from it.

    Attributes
    ----------
    k
        (m,) int64 numbers of components tried, ascending.
    bic, loglik
        (m,) float64; BIC = −2 log L + (free parameters)·log n, smaller is better.
    chosen
        The K chosen.
    rule
        `"minimum"` of the BIC or its `"knee"`.
    low, high
        How sure the choice is: the central 90 % of what `resampled` chooses; they hold `chosen`.
    """

    k: NDArray[np.int64]
    bic: NDArray[np.float64]
    loglik: NDArray[np.float64]
    chosen: int
    rule: Literal["minimum", "knee"]
    low: int
    high: int


def estimate_k(x: NDArray[np.floating], *, k_min: int, k_max: int, starts: int, seed: int) -> Curve:
    """Choose K by the BIC of the tied mixture.

    The smallest BIC wins when `BEYOND` larger K were tried. On tissue the latents are not Gaussian and the BIC often
    still falls, or wavers, at `k_max`; then the knee is taken: the K whose BIC lies farthest below the straight line
    from the first to the last point of the curve (`k_min` when none lies below).

    Parameters
    ----------
    x
        (n, d) rows; at most `CURVE_SPOTS` of them are used.
    k_min, k_max
        Inclusive range; `k_max` is cut to the number of distinct rows.
    starts
        Starts of each mixture.
    seed
        Of the sample and the starts.

    Raises
    ------
    InputError
        When `k_min` exceeds `k_max` or the number of distinct rows.
    """
    rng = np.random.default_rng(seed)
    if len(x) > CURVE_SPOTS:
        x = x[np.sort(rng.choice(len(x), size=CURVE_SPOTS, replace=False))]
    distinct = len(np.unique(x, axis=0))
    last = min(k_max, distinct)
    if not 1 <= k_min <= last:
        raise InputError(f"K from {k_min} to {k_max} asked of {distinct} distinct spots; expected 1 ≤ k_min ≤ {last}")
    tried = np.arange(k_min, last + 1)
    seeds = rng.integers(0, 2**31 - 1, size=len(tried))
    fits = [fit_mixture(x, int(k), starts=starts, seed=int(s)) for k, s in zip(tried, seeds, strict=True)]
    bic = np.array([fit.bic for fit in fits])
    chosen, rule = choose(tried, bic, ceiling=k_max)
    again = resampled(x, fits, tried, ceiling=k_max, rng=rng)
    low, high = np.quantile(again, [(1 - SHARE) / 2, (1 + SHARE) / 2], method="inverted_cdf")
    return Curve(
        k=tried,
        bic=bic,
        loglik=np.array([fit.loglik for fit in fits]),
        chosen=chosen,
        rule=rule,
        low=min(int(low), chosen),
        high=max(int(high), chosen),
    )


def resampled(
    x: NDArray[np.floating],
    fits: Sequence[TiedMixture],
    tried: NDArray[np.int64],
    *,
    ceiling: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Choose K on resampled tissue: tiles drawn with replacement, the curve cut off anywhere in its last third.

    The mixtures stay as fitted and only the likelihoods of their rows are drawn anew (resampling of estimated
    log-likelihoods, Kishino, Miyata and Hasegawa 1990), so a resample costs a sum. The end of the curve moves because
    the knee depends on it.

    Parameters
    ----------
    x
        (n, d) the rows fitted, in an order in which near rows are near in the tissue.
    fits, tried
        A mixture for each K tried, ascending.
    ceiling
        `k_max`.
    rng
        Source of the resamples.

    Returns
    -------
    NDArray
        (RESAMPLES,) int64, the K chosen on each.
    """
    n = len(x)
    starts = np.arange(0, n, min(TILE, max(1, n // 8)))
    tiles = np.stack([np.add.reduceat(fit.log_likelihood(x), starts) for fit in fits], axis=1)  # (tiles, K)
    size = np.diff(np.append(starts, n))
    penalty = np.array([fit.bic + 2 * fit.loglik for fit in fits])
    out = np.empty(RESAMPLES, np.int64)
    for i in range(RESAMPLES):
        drawn = rng.multinomial(len(starts), np.full(len(starts), 1 / len(starts)))
        bic = -2.0 * (drawn @ tiles) * (n / (drawn @ size)) + penalty
        last = int(rng.integers(min(len(tried), max(3, -(-2 * len(tried) // 3))), len(tried) + 1))
        # cut off before its end, a curve that still falls has its knee
        out[i] = choose(tried[:last], bic[:last], ceiling=ceiling if last == len(tried) else int(tried[last - 1]))[0]
    return out


def choose(k: NDArray[np.int64], bic: NDArray[np.float64], *, ceiling: int) -> tuple[int, Literal["minimum", "knee"]]:
    """Pick the minimum, or the knee when it lies at the end of the curve (`BEYOND`)."""
    lowest = int(np.argmin(bic))
    if lowest < len(k) - BEYOND or k[-1] < ceiling or len(k) < 3:
        return int(k[lowest]), "minimum"
    line = bic[0] + (bic[-1] - bic[0]) * (k - k[0]) / (k[-1] - k[0])
    return int(k[int(np.argmax(line - bic))]), "knee"
