"""How many domains: the BIC of the tied mixture over a range of K."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stscale.analysis.mixture import fit_mixture
from stscale.errors import InputError

CURVE_SPOTS = 20_000
"""Spots the curve is fitted on, drawn by the seed. More only make the criterion demand more components."""


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
    """

    k: NDArray[np.int64]
    bic: NDArray[np.float64]
    loglik: NDArray[np.float64]
    chosen: int
    rule: Literal["minimum", "knee"]


def estimate_k(x: NDArray[np.floating], *, k_min: int, k_max: int, starts: int, seed: int) -> Curve:
    """Choose K by the BIC of the tied mixture.

    The smallest BIC wins when it lies below `k_max`. On tissue the latents are not Gaussian and the BIC often
    still falls at `k_max`; then the knee is taken: the K whose BIC lies farthest below the straight line from
    the first to the last point of the curve (`k_min` when none lies below).

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
    chosen, rule = _choose(tried, bic, ceiling=k_max)
    return Curve(k=tried, bic=bic, loglik=np.array([fit.loglik for fit in fits]), chosen=chosen, rule=rule)


def _choose(k: NDArray[np.int64], bic: NDArray[np.float64], *, ceiling: int) -> tuple[int, Literal["minimum", "knee"]]:
    """Pick the minimum, or the knee when the curve still falls at its end."""
    lowest = int(np.argmin(bic))
    if lowest < len(k) - 1 or k[-1] < ceiling or len(k) < 3:
        return int(k[lowest]), "minimum"
    line = bic[0] + (bic[-1] - bic[0]) * (k - k[0]) / (k[-1] - k[0])
    return int(k[int(np.argmax(line - bic))]), "knee"
