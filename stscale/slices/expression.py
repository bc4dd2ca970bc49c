"""What the genes of a simulated tissue do: abundances, markers, gradients, negative binomial counts."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stscale.config import Simulate
from stscale.slices.tissue import generator

ABUNDANCE_SD = 1.3  # log sd of the genes' abundances: most genes are low
MARKER_SPREAD = 0.3  # of a marker's fold change around the configured one, relative
MARKER_DOWN = 0.2  # share of markers that mark by their absence
GRADIENT_SHARE = 0.1  # of the genes that change inside domains
DIRECT = 10.0  # mean above which a count is drawn as gamma-Poisson, not by inversion
_GENES = 3  # first number of the spawn key; 0 to 2 are the tissue's, 4 and up the slices'


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """What the genes do, the same in every slice.

    Attributes
    ----------
    abundance : (K, g) float64
        Share of each gene in each domain's counts, before batch effect and normalisation.
    marker : (g,) int64
        Domain a gene marks; -1 for none.
    gradient : (2, g) float64
        γ; zero for most genes.
    """

    abundance: NDArray[np.float64]
    marker: NDArray[np.int64]
    gradient: NDArray[np.float64]

    @classmethod
    def build(cls, *, seed: int, genes: int, config: Simulate) -> "Expression":
        """Draw the expression that belongs to a seed."""
        from scipy.special import ndtri

        rng = generator(seed, _GENES)
        # quantiles instead of draws: few genes hold most counts, and how few must not hang on the seed
        level = rng.permutation(ABUNDANCE_SD * ndtri((np.arange(genes) + 0.5) / genes))
        chosen = rng.permutation(genes)[: round(config.marker_fraction * genes)]
        # dealt in order of abundance: each domain gets markers of all abundances, and differs from all others
        chosen = chosen[np.argsort(level[chosen], kind="stable")]
        marker = np.full(genes, -1, dtype=np.int64)
        rounds = -(-len(chosen) // config.domains)
        dealt = np.concatenate([rng.permutation(config.domains) for _ in range(rounds)] or [chosen])
        marker[chosen] = dealt[: len(chosen)]
        change = config.marker_lfc * (1 + MARKER_SPREAD * rng.standard_normal(genes))
        change *= np.where(rng.random(genes) < MARKER_DOWN, -1, 1)
        fold = np.where(marker == np.arange(config.domains)[:, None], change, 0.0)
        gradient = config.gradient * rng.standard_normal((2, genes)) * (rng.random(genes) < GRADIENT_SHARE)
        abundance = np.exp(level + fold)
        return cls(abundance=abundance / np.exp(level).sum(), marker=marker, gradient=gradient)

    def profile(self, batch_log_effect: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return ρ (K, g) of a slice with gene effects (g,); rows sum to one."""
        shifted = self.abundance * np.exp(batch_log_effect)
        normalised: NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
        return normalised


def negative_binomial(mean: NDArray[np.float32], dispersion: float, rng: np.random.Generator) -> sparse.csr_matrix:
    """Draw counts with given means and variance ``m + m²/θ``, spending time on what is not zero only.

    Parameters
    ----------
    mean : (b, g) float32
        m, not negative.
    dispersion
        θ, above 0.
    rng
        Source of the draws.

    Returns
    -------
    (b, g) csr_matrix
        float32 data, int32 indices, sorted.

    Notes
    -----
    ``P(0) = exp(-λ)`` with ``λ = θ log(1 + m/θ)``, so an entry is zero when a standard exponential exceeds
    λ. The others are drawn from the distribution without zero by inversion, large means as Poisson counts
    with gamma-distributed rate. On sparse counts this takes a third of the time of a gamma and a Poisson
    draw for every entry.
    """
    columns = mean.shape[1]
    hazard = np.log1p(mean * np.float32(1 / dispersion))
    hazard *= np.float32(dispersion)
    hit = rng.standard_exponential(mean.shape, dtype=np.float32) < hazard
    hit |= mean > DIRECT
    place = np.flatnonzero(hit)
    m = mean.reshape(-1)[place].astype(np.float64)
    large = m > DIRECT
    count = np.empty(len(place), dtype=np.float32)
    count[~large] = _above_zero(m[~large], dispersion, rng)
    rate = m[large] * (rng.standard_gamma(dispersion, int(large.sum())) / dispersion)
    count[large] = rng.poisson(rate)
    start = np.concatenate([[0], np.cumsum(np.count_nonzero(hit, axis=1))])
    block = sparse.csr_matrix((count, (place % columns).astype(np.int32), start), shape=mean.shape)
    block.eliminate_zeros()
    return block


def _above_zero(mean: NDArray[np.float64], dispersion: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Negative binomial counts that are not zero, by walking up the probabilities."""
    count = np.ones(len(mean), dtype=np.float32)
    log_zero = -dispersion * np.log1p(mean / dispersion)
    step = mean / (mean + dispersion)
    left = -np.expm1(log_zero) * rng.random(len(mean))  # of the mass above zero, still to be walked
    mass = np.exp(log_zero) * step * dispersion  # P(1)
    active = np.arange(len(mean))
    reached = 1
    while len(active):
        # the floor ends a walk that rounding would keep going in a tail without mass
        on = (left >= mass) & (mass > 1e-20)
        active, left, mass, step = active[on], left[on] - mass[on], mass[on], step[on]
        mass = mass * step * ((dispersion + reached) / (reached + 1))
        reached += 1
        count[active] = reached
    return count
