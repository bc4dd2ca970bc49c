"""What each slice captures of each gene, and how its values are brought to the height they have in all slices.

A slice captures the share r of a gene that its counts are of those expected of its library. Of a value
y = √x + √(x + 1) − 1 of counts x (`stscale.slices.transform`) two things follow.

Height. Where counts are many, y is √r times as high, and ``"slice"`` divides by that. Where they are few, y goes with
the count itself, r times as high. With x of Poisson's distribution and mean m, a change of log m moves what one expects
of y by

    a(m) = dE(y) / d log m = m E[y(x + 1) − y(x)]

(m y₁ for few counts, √m for many), and ``"poisson"`` multiplies by a(m) / a(r m): a change of the gene's abundance then
moves its values as far in every slice.

Information. A slice with r times the counts of a gene tells w = r times as much of it: where counts are few a relative
change moves y r times as far and its variance is r times as large; where they are many, √r times as far at the same
variance. Scores go by w (`stscale.slices.components`). Covariances of ``"poisson"`` do so too (`stscale.slices.pca`):
brought to one height, a gene that a slice hardly captures is mostly noise there.

``"auto"`` is ``"poisson"`` where the typical gene's log r spreads over slices by more than `UNLIKE` (`spread`), else
``"slice"``. The typical gene is the median one: tissue that a slice lacks changes the shares of some genes, chemistry,
donors and fixation those of all. Sections of one donor have 0.03 (cortex, 0.07 where slices lack up to 38 % of it) to
0.15 (breast, breast cancer), those of two to four patients with breast cancer 0.22 to 0.31.

Source: the identity dE f(x) / dm = E[f(x + 1) − f(x)] of Poisson's x, e.g. Johnson, Kemp and Kotz, Univariate Discrete
Distributions, 3rd ed. (2005), 4.3.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

PRIOR = {"slice": 500.0, "poisson": 100.0}
"""Counts of a gene in a slice that say as much about its capture as the belief that it is that of all slices."""

UNLIKE = 0.18
"""Spread of log r over slices above which ``"auto"`` takes their values to follow Poisson counts."""

TOLD, GENES = 200.0, 20
"""Counts of a gene in every slice that has it from which on it tells the spread, and how many such genes must do so."""

TURNS = 10
"""Of medians of slices and means of genes: enough where slices lack half of the genes."""

ALIKE = 1e-9
"""A share r this close to 1 is rounding: of a slice alone, which captures what all do."""

FEWEST, MOST, NODES = 1e-6, 1e4, 801
"""Means between which a(m) is tabulated, and at how many; beyond them it goes with m, and with its root."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Capture:
    """Of s slices and v genes.

    Attributes
    ----------
    gain
        (s, v) float64, what the values of a gene in a slice are multiplied by; 1 where it lacks the gene.
    precision
        (s, v) float64, w: what a slice tells of a gene in what all do; 0 where it lacks the gene.
    weight
        (s, v) float64, how much a squared value in the slice counts in covariances; 0 where it lacks the gene.
    kind
        How values follow the counts, see above; ``"all"``: they stay as they are.
    spread
        What ``"auto"`` went by, see `spread`; NaN where nobody looked.
    """

    gain: NDArray[np.float64]
    precision: NDArray[np.float64]
    weight: NDArray[np.float64]
    kind: Literal["slice", "poisson", "all"]
    spread: float = float("nan")

    @classmethod
    def alike(cls, present: NDArray[np.bool_]) -> "Capture":
        """Return that of slices that capture alike what they have, `present` (s, v)."""
        there = present.astype(np.float64)
        return cls(gain=np.ones(present.shape), precision=there, weight=there, kind="all")

    @classmethod
    def of(
        cls,
        share: NDArray[np.float64],
        mean: NDArray[np.float64],
        present: NDArray[np.bool_],
        *,
        kind: Literal["slice", "poisson"],
    ) -> "Capture":
        """Return what follows from the shares captured.

        Parameters
        ----------
        share
            (s, v) r, see `captured`.
        mean
            (v,) mean counts of a spot over the slices that have the gene.
        present
            (s, v) whether the slice has the gene.
        kind
            How values follow the counts, see above.
        """
        there = present.astype(np.float64)
        precision = np.where(present, share, 0.0)
        if kind == "slice":
            return cls(gain=np.where(present, share**-0.5, 1.0), precision=precision, weight=there, kind=kind)
        gain = np.where(present, moved(mean) / moved(mean * share), 1.0)
        return cls(gain=gain, precision=precision, weight=precision, kind=kind)

    def notes(self) -> tuple[str, ...]:
        """Say that values are not those of slices that capture alike, where that was found and not asked for."""
        if self.kind != "poisson" or np.isnan(self.spread):
            return ()
        return (
            f"slices capture genes unlike each other, a typical one by a factor of {np.exp(self.spread):.2f}, as "
            "donors or batches do: their values are evened out as those of Poisson counts (preprocess.gain = 'slice': "
            "by roots)",
        )

    def columns(self, columns: NDArray[np.integer]) -> "Capture":
        """Return some genes (k,)."""
        gain, precision, weight = (part[:, columns] for part in (self.gain, self.precision, self.weight))
        return replace(self, gain=gain, precision=precision, weight=weight)


def captured(
    totals: NDArray[np.float64], mean: NDArray[np.float64], present: NDArray[np.bool_], *, prior: float
) -> NDArray[np.float64]:
    """Return r (s, v), the counts over those expected of the slice's library; 1 where a slice lacks the gene.

    Parameters
    ----------
    totals
        (s, v) counts of each gene of the vocabulary in each slice.
    mean, present
        As in `Capture.of`.
    prior
        Counts added to both, see `PRIOR`.
    """
    share = mean / max(float(mean.sum()), 1e-300)
    library = totals.sum(axis=1) / np.maximum(present @ share, 1e-300)
    expected = library[:, None] * share
    found = np.where(present, (totals + prior) / (expected + prior), 1.0)
    return np.where(np.abs(found - 1.0) < ALIKE, 1.0, found)


def spread(totals: NDArray[np.float64], present: NDArray[np.bool_]) -> float:
    """Return by how much the typical gene's log r differs between slices: a standard deviation, without counting noise.

    Parameters
    ----------
    totals, present
        As in `captured`.

    Returns
    -------
    float
        Root of the median over genes of Σ_s (log r_s − its mean)² / (c − 1) less the mean of 1 / counts, over the c
        slices that have the gene, in units of the median of χ²_{c−1} / (c − 1). Instead of the library, which few
        genes of many counts may shift, r is of the counts that put a slice's median gene where it is in all slices
        (medians and means in turn, `TURNS` times). 0 where fewer than `GENES` genes of two slices or more have
        `TOLD` counts in each slice that has them.
    """
    from scipy.stats import chi2

    slices = present.sum(axis=0)
    told = (slices >= 2) & (np.where(present, totals, np.inf).min(axis=0, initial=np.inf) >= TOLD)
    if np.count_nonzero(told) < GENES:
        return 0.0
    c, some = slices[told], present[:, told].any(axis=1)
    counts = np.where(present[some][:, told], totals[some][:, told], np.nan)
    log = np.log(counts)
    for _ in range(TURNS):
        log -= np.nanmedian(log - np.nanmean(log, axis=0), axis=1, keepdims=True)
    variance = np.nansum((log - np.nanmean(log, axis=0)) ** 2, axis=0) / (c - 1) - np.nanmean(1.0 / counts, axis=0)
    return float(np.sqrt(max(np.median(variance * (c - 1) / chi2.ppf(0.5, c - 1)), 0.0)))


def moved(mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a(m) > 0 of mean counts m ≥ 0, of any shape, to 10⁻⁴ of its value; that of `FEWEST` · 10⁻⁶ at 0."""
    at, found = _table()
    log = np.log(np.maximum(mean, FEWEST * 1e-6))
    inside = np.interp(log, at, found)
    return np.asarray(np.exp(inside + np.minimum(log - at[0], 0.0) + 0.5 * np.maximum(log - at[-1], 0.0)))


@lru_cache(maxsize=1)
def _table() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logarithms of means and of a, (`NODES`,) each."""
    from scipy.stats import poisson

    means = np.geomspace(FEWEST, MOST, NODES)
    found = np.empty(NODES)
    for i, m in enumerate(means):
        x = np.arange(int(m + 12.0 * np.sqrt(m)) + 40, dtype=np.float64)
        # y(x + 1) − y(x): the roots of x + 1 cancel
        found[i] = m * (poisson.pmf(x, m) @ (np.sqrt(x + 2.0) - np.sqrt(x)))
    return np.log(means), np.log(found)
