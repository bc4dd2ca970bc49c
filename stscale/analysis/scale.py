"""How far around a spot the tissue tells what is in it, from the components alone.

Rows y are predicted by averages over the spatial graph, A the mean over a spot and its neighbours and r rounds of it.
What a spot says of itself is left out by generalised cross-validation,

    V(r) = Σ_i ‖y_i − (Aʳ y)_i‖² / (1 − tr(Aʳ)/n)²

Few rounds leave the noise of single spots, and the kinds of single cells, in the prediction; many blur borders. Where
spots show their domain themselves, two rounds are enough for finding it, and more blur it although V may fall a little
still. Where domains differ by how often kinds of cells occur, V falls further. So averages over the rounds of least V
are put beside those over few where they predict better by more than they do where spots show their domain
(`Scale.wider`). The trace is estimated with random signs q: E qᵀAʳq.

Source: Golub, Heath and Wahba, Generalized cross-validation as a method for choosing a good ridge parameter,
Technometrics 21 (1979), 215-223; Hutchinson, A stochastic estimator of the trace of the influence matrix for Laplacian
smoothing splines, Commun. Stat. Simul. Comput. 18 (1989), 1059-1076.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stscale.analysis.windows import mean_around, windows

TRIED = (1, 2, 3, 4, 6, 8, 12, 16)
"""Rounds of averaging that are compared."""

SIGNS, FEWEST_SIGNS, MOST_SIGNS = 2**20, 64, 1024
"""Random signs of all rows together, about; of one row at least and at most. Eight moved the gain by 0.004."""

FROM, FULL = 0.015, 0.025
"""Gains from which on wider averages weigh something, and all they may. Simulated spots that show their domain have
0.013 to 0.017, simulated mixed cells 0.019 to 0.037, cells of a brain section 0.041, Visium 0."""

LITTLE = 0.02
"""Wider averages of less weight would change nothing, and V is an estimate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wider:
    """Averages over more rounds, beside those over few.

    Attributes
    ----------
    rounds
        Of averaging.
    weight
        Their total variance in that of the averages over few.
    """

    rounds: int
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Prediction of spots from their surroundings.

    Attributes
    ----------
    used
        Rounds that components are averaged.
    losses
        V(r) over its least value, by rounds r; `used` is among them.
    rounds
        Those of the least V.
    """

    used: int
    losses: dict[int, float]
    rounds: int

    @property
    def gain(self) -> float:
        """V at the rounds used over its least value with as many or more rounds, less 1; 0 where spots stay alone."""
        if not self.used:
            return 0.0
        return self.losses[self.used] / min(v for r, v in self.losses.items() if r >= self.used) - 1.0

    def wider(self, most: float) -> Wider | None:
        """Return what is put beside averages over the rounds used; None where that would weigh less than `LITTLE`.

        Its weight grows from 0 to `most` while `gain` grows from `FROM` to `FULL`.
        """
        weight = most * min(max((self.gain - FROM) / (FULL - FROM), 0.0), 1.0)
        if weight < LITTLE:
            return None
        return Wider(rounds=min((v, r) for r, v in self.losses.items() if r > self.used)[1], weight=weight)


def spatial_scale(
    read: Callable[[int, int], NDArray[np.floating]],
    indptr: NDArray[np.integer],
    indices: NDArray[np.integer],
    *,
    used: int,
    seed: int,
) -> Scale:
    """Compare rounds of averaging by how well surroundings predict a spot.

    Parameters
    ----------
    read
        Rows lo to hi of the components, (hi − lo, p), in Hilbert order within each slice.
    indptr, indices
        (n + 1,) and (E,) the spatial graph in CSR form. Edges out of a window of rows are left out.
    used
        Rounds that components are averaged; compared with `TRIED`. 0 is not: a spot does not predict itself.
    seed
        Of the random signs.
    """
    n = len(indptr) - 1
    tried = sorted({*TRIED, used} - {0})
    rng = np.random.default_rng(seed)
    probes = int(np.clip(SIGNS // n, FEWEST_SIGNS, MOST_SIGNS))
    residual, trace, rows = np.zeros(len(tried)), np.zeros(len(tried)), 0
    for lo, hi in windows(n):
        mean = mean_around(indptr, indices, lo, hi, itself=True)
        y = np.asarray(read(lo, hi), dtype=np.float64)
        signs = rng.choice([-1.0, 1.0], size=(hi - lo, probes))
        near, probe = y, signs
        for r in range(1, tried[-1] + 1):
            near, probe = mean @ near, mean @ probe
            if r in tried:
                at = tried.index(r)
                residual[at] += np.sum((y - near) ** 2)
                trace[at] += np.sum(signs * probe) / probes
        rows += hi - lo
    own = np.clip(trace / rows, 0.0, 1.0)
    # where nothing is near anything, a spot is its own average and nothing is predicted
    loss = np.where(own < 1.0 - 1e-9, residual / np.maximum(1.0 - own, 1e-9) ** 2, np.inf)
    least = float(loss.min())
    if not np.isfinite(least) or least <= 0.0:
        return Scale(used=used, losses=dict.fromkeys(tried, 1.0), rounds=tried[0])
    shares = {r: float(v / least) for r, v in zip(tried, loss, strict=True)}
    return Scale(used=used, losses=shares, rounds=tried[int(np.argmin(loss))])
