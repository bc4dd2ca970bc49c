"""The quality card of an embedding: how steady, likely, coherent and mixed its domains are, without any label.

Whatever embeddings are compared, they are clustered alike: the same number of domains, the same leading components,
the same tied mixtures on the same spots. The run's own domains come from a larger fit and are not what is compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from stscale.analysis.features import Reduction
from stscale.analysis.metrics import ari
from stscale.analysis.metrics_mixing import LISI_NEIGHBORS, PERPLEXITY, ilisi
from stscale.analysis.metrics_spatial import chaos, pas
from stscale.analysis.mixture import RIDGE, TiedMixture, fit_mixture
from stscale.analysis.told import Surroundings
from stscale.errors import InputError
from stscale.graphs.neighbors import search
from stscale.memory import let_go

FIT_SPOTS = 5_000
"""Spots the mixtures are fitted on, at most, drawn as whole tiles."""

TILE = 64
"""Consecutive rows drawn together: rows are in Hilbert order, so they are one piece of tissue."""

SPOTS = 50_000
"""Spots that coherence is averaged over, at most."""

MIXING_SPOTS = 5_000
"""Spots whose nearest latents are sought among each other."""

SEEDS, SPLITS = 4, 3
"""Mixtures that are compared, and divisions of the tiles into halves."""

STARTS, POLISHED = 8, 2
"""Starts of each mixture, and how many of them go to convergence."""

FEWEST_PER_DOMAIN = 20
"""Spots per domain below which no mixture is judged."""

ROWS = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """One embedding in numbers; None where a number is not defined.

    Attributes
    ----------
    seeds
        Mean ARI between mixtures of different seeds on the same spots; 1: every seed finds the same domains.
    halves
        ARI over the spots between the mixtures of two halves of their tiles, mean over `SPLITS` divisions.
    log_likelihood
        Of a spot under the likeliest of the mixtures, nats; its scale is that of the embedding, so it compares fits of
        one embedding and not embeddings.
    bic
        BIC of that mixture per spot; likewise.
    told
        Share of a spot's own variance that the mixture's domains of its neighbours tell (`Surroundings.told`), mean
        over the seeds.
    gain
        Log-likelihood of a spot of either half under the mixture of the other half, less that under one Gaussian of
        the other half, nats; mean over the divisions. No linear change of the embedding changes it.
    chaos, pas
        Of the likeliest mixture's domains.
    ilisi
        Of the slices, scaled to 0 … 1.
    """

    seeds: float | None
    halves: float | None
    told: float | None
    log_likelihood: float | None
    bic: float | None
    gain: float | None
    chaos: float | None
    pas: float | None
    ilisi: float | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """The spots that all embeddings of a run are compared on.

    Attributes
    ----------
    fit
        (m,) int64 rows of the mixtures, ascending.
    halves
        (SPLITS, m) bool, which half each of them is in.
    coherence, mixing
        Rows that coherence is averaged over, and whose nearest latents are sought; ascending.
    """

    fit: NDArray[np.int64]
    halves: NDArray[np.bool_]
    coherence: NDArray[np.int64]
    mixing: NDArray[np.int64]

    @staticmethod
    def draw(n: int, *, seed: int) -> Sample:
        """Draw from n spots; the same seed gives the same spots."""
        rng = np.random.default_rng(seed)
        tile = np.arange(n) // min(TILE, max(1, n // 8))
        tiles = int(tile[-1]) + 1
        kept = rng.permutation(tiles) < (tiles if n <= FIT_SPOTS else FIT_SPOTS // TILE)
        fit = np.flatnonzero(kept[tile])
        rank = np.unique(tile[fit], return_inverse=True)[1]
        return Sample(
            fit=fit,
            halves=np.stack([rng.permutation(int(rank[-1]) + 1)[rank] % 2 == 0 for _ in range(SPLITS)]),
            coherence=_some(n, SPOTS, rng),
            mixing=_some(n, MIXING_SPOTS, rng),
        )


def _some(n: int, most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return np.sort(rng.choice(n, most, replace=False)) if n > most else np.arange(n)


def measure(
    z: NDArray[np.floating],
    xy: NDArray[np.floating],
    slice_: NDArray[np.integer],
    sample: Sample,
    surroundings: Surroundings,
    *,
    k: int,
    n_components: int,
    seed: int,
) -> Measures:
    """Measure one embedding.

    Parameters
    ----------
    z
        (n, d) latents.
    xy, slice_
        (n, 2|3) coordinates and (n,) slice numbers.
    sample
        Spots to compare on.
    surroundings
        Of the same tissue: its spots' own components, and which lie around them.
    k
        Number of domains.
    n_components
        Leading components that the mixtures see; 0: all.
    seed
        Of the mixtures.

    Raises
    ------
    InputError
        When the parts are of different lengths.
    """
    if not len(z) == len(xy) == len(slice_):
        raise InputError(
            f"{len(z)} latents, {len(xy)} coordinates, {len(slice_)} slice numbers; expected equal numbers"
        )
    rows = z[sample.fit]
    reduction = Reduction.fit(rows, n_components=n_components, l2_normalize=False)
    x = reduction.apply(rows)
    mixed = mixing(z[sample.mixing], np.asarray(slice_)[sample.mixing])
    if k < 2 or len(x) < FEWEST_PER_DOMAIN * k or len(np.unique(x, axis=0)) < 2 * k:
        return Measures(
            seeds=None,
            halves=None,
            told=None,
            log_likelihood=None,
            bic=None,
            gain=None,
            chaos=None,
            pas=None,
            ilisi=mixed,
        )
    seeds = np.random.default_rng(seed).integers(0, 2**31 - 1, size=SEEDS + SPLITS)
    fits = [fit_mixture(x, k, starts=STARTS, polish=POLISHED, seed=int(s)) for s in seeds[:SEEDS]]
    best = max(fits, key=lambda fit: fit.loglik)
    labels = [fit.predict(x) for fit in fits]
    halves, gain = _halves(x, sample.halves, k, seeds[SEEDS:].tolist())
    domains = _predicted(z, reduction, best)
    around = reduction.apply(z[surroundings.rows])
    told = [surroundings.told(fit.predict(around)) for fit in fits]
    return Measures(
        seeds=float(np.mean([ari(a, b) for a, b in combinations(labels, 2)])),
        halves=halves,
        told=None if told[0] is None else float(np.mean([t for t in told if t is not None])),
        log_likelihood=best.loglik / len(x),
        bic=best.bic / len(x),
        gain=gain,
        chaos=chaos(xy, domains, slice_, rows=sample.coherence),
        pas=pas(xy, domains, slice_, rows=sample.coherence),
        ilisi=mixed,
    )


def _halves(x: NDArray[np.float64], halves: NDArray[np.bool_], k: int, seeds: list[int]) -> tuple[float, float]:
    """Agreement of the mixtures of two halves, and what each gains on the other over one Gaussian."""
    agreement, gains = [], []
    for half, seed in zip(halves, seeds, strict=True):
        labels = []
        for own in (half, ~half):
            fit = fit_mixture(x[own], k, starts=STARTS, polish=POLISHED, seed=seed)
            labels.append(fit.predict(x))
            gains.append(float(np.mean(fit.log_likelihood(x[~own]) - one_gaussian(x[own]).log_likelihood(x[~own]))))
        agreement.append(ari(*labels))
    return float(np.mean(agreement)), float(np.mean(gains))


def one_gaussian(x: NDArray[np.float64]) -> TiedMixture:
    """Return the Gaussian with mean and covariance of rows (m, d)."""
    d, centred = x.shape[1], x - x.mean(axis=0)
    covariance = centred.T @ centred / len(x)
    covariance.flat[:: d + 1] += RIDGE * max(float(np.mean(centred**2)), 1e-12)
    return TiedMixture(
        weights=np.ones(1),
        means=x.mean(axis=0)[None],
        covariance=covariance,
        loglik=float("nan"),
        n=len(x),
        iterations=0,
        converged=True,
    )


def _predicted(z: NDArray[np.floating], reduction: Reduction, fit: TiedMixture) -> NDArray[np.int64]:
    out = np.empty(len(z), np.int64)
    for lo in range(0, len(z), ROWS):
        out[lo : lo + ROWS] = fit.predict(reduction.apply(z[lo : lo + ROWS]))
        let_go(z)
    return out


def mixing(z: NDArray[np.floating], slice_: NDArray[np.integer]) -> float | None:
    """Return the scaled iLISI of latents (m, d) of slices (m,); None with one slice or hardly a spot."""
    k = min(LISI_NEIGHBORS, len(z) - 1)
    if len(np.unique(slice_)) < 2 or k < 6:
        return None
    latents = np.ascontiguousarray(z, np.float32)
    near = search(latents, latents, k, exclude_self=True)
    return ilisi(near, slice_, perplexity=min(PERPLEXITY, k / 3), scaled=True)
