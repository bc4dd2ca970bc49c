"""What principal components are of: log-normalised values as they are stored, or their Freeman-Tukey transform.

Stored are v = log(1 + T·c/l) with counts c, library l and T = `preprocess.target_sum`. At the mean library M,
x = M·c/l is

    x = M/T · (exp(v) − 1),   y = √x + √(x + 1) − 1

The variance of √x + √(x + 1) hardly depends on the mean of x where c is Poisson's, and y is 0 where c is. With T far
above the library (a thousand counts a spot, T = 10⁴) the logarithm hardly tells a count of 1 from one of 5, and genes
with few counts lose what they say.

A gene that a slice captures better than all do is higher there; a factor for each gene and slice takes that out
(`stscale.slices.capture`).

Source: Freeman and Tukey, Transformations related to the angular and the square root, Ann. Math. Statist. 21 (1950),
607-611.
"""

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stscale.config import Preprocess


@dataclass(frozen=True, slots=True, kw_only=True)
class Transform:
    """From log-normalised values to those that components are of.

    Attributes
    ----------
    kind
        ``"log"`` leaves values as they are.
    ratio
        M / T, mean library over the counts per spot after normalisation.
    """

    kind: Literal["sqrt", "log"]
    ratio: float = 1.0

    @classmethod
    def of(cls, config: Preprocess, library: float) -> Self:
        """Return what the options ask for; values that came log-normalised are taken as they are.

        Parameters
        ----------
        config
            `transform`, `target_sum` and `lognormalized` are read.
        library
            Mean counts of a spot on the vocabulary.
        """
        if config.lognormalized or config.transform == "log":
            return cls(kind="log")
        return cls(kind="sqrt", ratio=library / config.target_sum)

    def rows(
        self, normalised: sparse.csr_matrix, gain: NDArray[np.float64], which: NDArray[np.integer] | int
    ) -> sparse.csr_matrix:
        """Return rows (m, g) of log-normalised values transformed, times `gain` (s, g) of their slices `which`, (m,).

        What is not stored stays 0. Logarithms have no gain.
        """
        if self.kind == "log":
            return normalised
        data = self.values(normalised.data)
        if isinstance(which, int):
            data *= gain[which].astype(data.dtype)[normalised.indices]
        else:
            slices = np.repeat(which, np.diff(normalised.indptr))
            data *= gain[slices, normalised.indices].astype(data.dtype)
        return sparse.csr_matrix((data, normalised.indices, normalised.indptr), shape=normalised.shape)

    def values(self, normalised: NDArray[Any]) -> NDArray[Any]:
        """Return log-normalised values transformed, in their shape and dtype."""
        if self.kind == "log":
            return normalised
        x = np.expm1(normalised)
        x *= self.ratio
        y = np.sqrt(x)
        x += 1
        np.sqrt(x, out=x)
        y += x
        y -= 1
        return y
