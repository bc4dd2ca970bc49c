"""What each gene weighs in principal components: scale, what neighbours share of it, and how seldom it is seen.

What neighbours share of a gene's variance is its autocorrelation,

    I_j = (v_j / σ²_j − κ̄) / (1 − κ̄)

with the variances v_j of averages over surroundings and σ²_j of spots, and the noise κ̄ that an average keeps: Moran's I
with the weights Σ_b w_bi w_bj, i ≠ j. A gene weighs I_j^a / σ_j: of many genes that share nothing, each would bring its
noise.

A gene that few spots have a count of is blown up by 1 / σ_j: one count of it outweighs all else in its spot, and in the
averages around that. ``"less"`` takes σ_j for `RARE` at least. Where spots have many counts the others outweigh it, and
it may mark a rare domain; where they have few, and most genes are such, axes and domains of single places come of it.
``"auto"`` goes by the typical gene (`TYPICAL`).

Source: Moran, Notes on continuous stochastic phenomena, Biometrika 37 (1950), 17-23; of axes by what neighbours share,
Wartenberg, Multivariate spatial correlation, Geogr. Anal. 17 (1985), 263-283.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

FLOOR = 0.005
"""Least autocorrelation a gene is taken to have; that of 10⁴ spots without any comes out between ±0.01."""

RARE = 0.1
"""Standard deviation of y (`stscale.slices.transform`), of a gene of which one spot in 200 has one count, at √2."""

TYPICAL = (0.1, 0.2)
"""Standard deviation of the median gene up to which ``"auto"`` is ``"less"``, and from which on it is ``"alike"``.
Set on cortex with counts taken away (`benchmarks.depth`)."""


def least_deviation(variance: NDArray[np.float64], rare: Literal["auto", "less", "alike"]) -> float:
    """Return the standard deviation that genes are divided by at least, from the variances (g,) of transformed counts.

    Of ``"auto"`` it falls linearly between the bounds of `TYPICAL`, so that a few counts more change little.
    """
    if rare == "alike":
        return 0.0
    deviation = np.sqrt(variance[varying(variance)])
    if rare == "less" or not len(deviation):
        return RARE
    return float(np.interp(np.median(deviation), TYPICAL, (RARE, 0.0)))


def rare_notes(variance: NDArray[np.float64], least: float) -> tuple[str, ...]:
    """Say how many genes count less because they are rare, if any do."""
    few = int(np.count_nonzero(varying(variance) & (variance < least**2)))
    if not few:
        return ()
    return (
        f"{few} of {len(variance)} genes, seen in fewer than one of {2.0 / least**2:.0f} spots or so, count less than "
        "others in the components (preprocess.rare = 'alike': as much)",
    )


def gene_weights(
    variance: NDArray[np.float64],
    averaged: NDArray[np.float64] | None,
    noise: float,
    *,
    scale: bool,
    least: float,
    coherence: float,
) -> NDArray[np.float64]:
    """Return what genes are multiplied by, (g,).

    Parameters
    ----------
    variance
        (g,) σ², of spots.
    averaged
        (g,) v, of averages; None: none were made, genes have no autocorrelation.
    noise
        κ̄, in [0, 1).
    scale
        Divide by σ. A constant gene has no spread to divide by: it stays at 0.
    least
        Least σ to divide by.
    coherence
        Power a of the autocorrelation.
    """
    varies = varying(variance)
    weight = np.ones(len(variance))
    if scale:
        weight[varies] = 1.0 / np.maximum(np.sqrt(variance[varies]), least)
        weight[~varies] = 0.0
    if coherence and averaged is not None:
        found = (averaged[varies] / variance[varies] - noise) / max(1.0 - noise, 1e-12)
        weight[varies] *= np.clip(found, FLOOR, 1.0) ** coherence
    return weight


def varying(variance: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Say which genes vary, (g,): rounding leaves tiny variances to those that do not."""
    return variance > 1e-12 * max(float(variance.max()), 1e-300)
