"""Moves between the local optima of a mixture: one component is given up, another one is split in two.

EM climbs to the nearest optimum, and starts alone rarely find the best one: with seven components most optima differ
in a cluster that has two components while two others share one. Giving up the one and splitting the other is the step
that EM cannot make (split-and-merge EM, Ueda et al., Neural Computation 2000).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from stscale.threads import spread_over_threads

if TYPE_CHECKING:
    from stscale.analysis.shrunk import ShrunkMixture

MOVES = 42
"""Tried in a round: all of a mixture of seven, the likeliest to gain of a larger one."""

TRIAL_ITERATIONS = 10
SECOND_ITERATIONS = 25
SECOND_TRIALS = 4
"""Moves of a round that are climbed further."""

TOLERANCE = 1e-4
HOPEFUL = 0.05
"""A move this much below the mixture it came from, after its second climb, is not tried on all rows (nats)."""

GAIN = 1e-3
"""Least gain of the objective on all rows for which a move is made (nats)."""

OFFSET = 0.7
"""Halves begin this many standard deviations from their common mean, along its widest direction."""


class Climber(Protocol):
    """EM on some rows."""

    rows: NDArray[np.float64]

    def climb(self, start: ShrunkMixture, iterations: int, tolerance: float) -> ShrunkMixture:
        """Make at most so many steps."""
        ...


def improved(mixture: ShrunkMixture, part: Climber, whole: Climber, *, rounds: int, polish: int) -> ShrunkMixture:
    """Make moves as long as the objective on all rows grows.

    Parameters
    ----------
    mixture
        A local optimum on the rows of `whole`.
    part, whole
        EM on some of the rows, where moves are tried, and on those that decide.
    rounds
        Moves made at most.
    polish
        EM steps on all rows after a move.

    Returns
    -------
    ShrunkMixture
        Of the same or a larger objective.
    """
    if len(mixture.means) < 3:  # with two, giving one up and splitting the other is where they came from
        return mixture
    for _ in range(rounds):
        better = _moved(mixture, part, whole, polish)
        if better is None:
            break
        mixture = better
    return mixture


def _moved(mixture: ShrunkMixture, part: Climber, whole: Climber, polish: int) -> ShrunkMixture | None:
    """Return the first move that gains on all rows, the most hopeful tried first; None when there is none."""
    base = part.climb(mixture, TRIAL_ITERATIONS, TOLERANCE)
    tried = spread_over_threads(
        lambda move: part.climb(split(base, *move), TRIAL_ITERATIONS, TOLERANCE), _candidates(base, part.rows)
    )
    tried.sort(key=lambda found: -found.objective)
    for found in tried[:SECOND_TRIALS]:
        second = part.climb(found, SECOND_ITERATIONS, TOLERANCE)
        if second.objective < base.objective - HOPEFUL:
            continue
        ended = whole.climb(second, polish, TOLERANCE / 100)
        used = len(np.unique(ended.predict(whole.rows)))
        if ended.objective > mixture.objective + GAIN and used == len(ended.means):
            return ended
    return None


def _candidates(mixture: ShrunkMixture, rows: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Pairs (given up, split), the most hopeful first.

    Without component c the log-likelihood falls by −Σ_i log(1 − r_ic) at first; splitting s is worth the more, the
    more rows it has and the wider it is along one direction.
    """
    score = mixture.log_density(rows)
    score -= score.max(axis=1, keepdims=True)
    share = np.exp(score)
    share /= share.sum(axis=1, keepdims=True)
    loss = -np.log(np.maximum(1.0 - share, 1e-12)).sum(axis=0)
    gain = share.sum(axis=0) * np.log1p([_widest(mixture, c)[0] for c in range(len(mixture.means))])
    k = len(loss)
    pairs = [(c, s) for c in range(k) for s in range(k) if c != s]
    return sorted(pairs, key=lambda pair: loss[pair[0]] - gain[pair[1]])[:MOVES]


def _widest(mixture: ShrunkMixture, component: int) -> tuple[float, NDArray[np.float64]]:
    """Largest variance of a component relative to the mean covariance, and that direction (d,), one deviation long."""
    common = np.einsum("kij,klj->il", mixture.factors, mixture.factors) / len(mixture.factors)
    root = np.linalg.cholesky(common)
    half = np.linalg.solve(root, mixture.factors[component])
    values, vectors = np.linalg.eigh(half @ half.T)
    return float(values[-1]), root @ vectors[:, -1] * np.sqrt(values[-1])


def split(mixture: ShrunkMixture, dropped: int, halved: int) -> ShrunkMixture:
    """Give component `dropped` up and put its place beside one half of `halved`; the number stays."""
    step = OFFSET * _widest(mixture, halved)[1]
    means, weights, factors = mixture.means.copy(), mixture.weights.copy(), mixture.factors.copy()
    means[dropped], means[halved] = mixture.means[halved] + step, mixture.means[halved] - step
    weights[[dropped, halved]] = mixture.weights[halved] / 2
    factors[dropped] = factors[halved]
    return replace(mixture, means=means, weights=weights / weights.sum(), factors=factors)
