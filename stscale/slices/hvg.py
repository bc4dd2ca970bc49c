"""Highly variable genes over many slices, from mergeable moments (`seurat_v3`, Stuart et al. 2019).

Per slice, a loess of log10 variance on log10 mean gives each gene the variance expected at its mean, σ². Counts
are clipped at mean + σ·√n and standardised with σ; their variance

    v = (n·mean² + Σ x² − 2·mean·Σ x) / ((n − 1)·σ²)        (x clipped)

ranks the slice's genes. Genes are then ordered by their median rank over the slices that have them among their
top `n_top`, and among equals by the number of such slices. A gene a slice lacks takes no part in its ranking.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stscale.errors import InputError
from stscale.slices.moments import Moments

WIDER = (0.5, 0.75, 1.0)  # spans tried in turn when the loess of a small slice is singular
FEWEST = 6  # genes below which a quadratic loess is not tried: skmisc crashes the process on 1 to 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GeneRanking:
    """Genes of the vocabulary, ranked over all slices.

    Attributes
    ----------
    columns
        (h,) int64, the genes kept, as ascending columns of the vocabulary.
    rank
        (g,) float64, median rank from 0, NaN for a gene in no slice's top.
    n_slices
        (g,) int64, slices that have the gene in their top.
    variance_norm
        (g,) float64, mean of the normalised variance over the slices that have the gene; NaN without one.
    """

    columns: NDArray[np.int64]
    rank: NDArray[np.float64]
    n_slices: NDArray[np.int64]
    variance_norm: NDArray[np.float64]


def trend(moments: Moments, present: NDArray[np.bool_], *, span: float, name: str) -> NDArray[np.float64]:
    """Fit the standard deviation expected at each gene's mean.

    Parameters
    ----------
    moments
        Of the raw counts of one slice, (g,) genes.
    present : (g,) bool
        Genes the slice has.
    span
        Share of the genes in a local fit. A singular fit is repeated with wider spans.
    name
        The slice's name, for the error.

    Returns
    -------
    (g,) float64
        1 for genes that are constant or absent, as in scanpy.

    Raises
    ------
    InputError
        If no span gives a fit: too few genes vary, or their means hardly differ.
    """
    from skmisc.loess import loess

    mean, variance = moments.mean(), moments.variance()
    varies = present & (variance > 0)
    expected = np.zeros_like(mean)
    g = int(varies.sum())
    x, y = np.log10(mean[varies]), np.log10(variance[varies])
    for width in (span, *(wider for wider in WIDER if wider > span)):
        # a window of fewer than three genes holds no parabola
        if g < FEWEST or g * width < 3:
            continue
        try:
            model = loess(x, y, span=width, degree=2)
            model.fit()
            fitted = np.asarray(model.outputs.fitted_values)
        except ValueError:
            continue
        if np.isfinite(fitted).all():
            expected[varies] = fitted
            return np.sqrt(10.0**expected)
    raise InputError(
        f"slice {name!r}: no trend of variance on mean could be fitted to its {g} genes that vary over "
        f"{moments.n} spots; leave the slice out, or keep all genes (n_hvg at or above their number)"
    )


def clip_limits(moments: Moments, deviation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Value at which each gene is clipped, mean + σ·√n, (g,) float64, in counts."""
    return moments.mean() + deviation * np.sqrt(moments.n)


def normalised_variance(moments: Moments, clipped: Moments, deviation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Variance of the clipped, standardised counts of one slice, (g,) float64.

    Parameters
    ----------
    moments
        Of the raw counts.
    clipped
        Of the counts clipped at `clip_limits`; its `n` is not used, because empty spots add nothing.
    deviation : (g,) float64
        From `trend`.
    """
    mean = moments.mean()
    spread = moments.n * mean**2 + clipped.squares - 2 * mean * clipped.total
    return np.asarray(spread / (max(moments.n - 1, 1) * deviation**2))


def rank_genes(variance_norm: NDArray[np.float64], present: NDArray[np.bool_], *, n_top: int) -> GeneRanking:
    """Rank genes over slices.

    Parameters
    ----------
    variance_norm : (s, g) float64
        What each slice ranks its genes by, larger first.
    present : (s, g) bool
        Genes each slice has; the others are not ranked there.
    n_top
        Genes to keep. All are kept when there are no more than that.

    Returns
    -------
    GeneRanking
        Ties are broken by the order of the vocabulary.
    """
    s, g = variance_norm.shape
    ranks = np.full((s, g), np.nan)
    for i in range(s):
        own = np.flatnonzero(present[i])
        order = own[np.argsort(-variance_norm[i, own], kind="stable")][:n_top]
        ranks[i, order] = np.arange(len(order))
    n_slices = np.count_nonzero(~np.isnan(ranks), axis=0)
    rank = np.full(g, np.nan)
    seen = n_slices > 0
    rank[seen] = np.nanmedian(ranks[:, seen], axis=0)
    # the last key sorts first; genes in no top come last
    best = np.lexsort((-n_slices, np.where(seen, rank, np.inf)))[:n_top]
    counted = present.sum(axis=0)
    total = np.where(present, variance_norm, 0.0).sum(axis=0)
    return GeneRanking(
        columns=np.sort(best).astype(np.int64),
        rank=rank,
        n_slices=n_slices.astype(np.int64),
        variance_norm=np.divide(total, counted, out=np.full(g, np.nan), where=counted > 0),
    )


def rank_by_variance(moments: Sequence[Moments], present: NDArray[np.bool_], *, n_top: int) -> GeneRanking:
    """Rank log-normalised genes by their plain variance in each slice, combined as in `rank_genes`.

    The logarithm has already taken most of the trend of variance on mean out of the values, so no trend is
    fitted and nothing is clipped.

    Parameters
    ----------
    moments
        Of the log-normalised values, one per slice.
    present : (s, g) bool
        Genes each slice has.
    n_top
        Genes to keep.
    """
    return rank_genes(np.stack([part.variance() for part in moments]), present, n_top=n_top)
