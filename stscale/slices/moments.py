"""Per-gene sums that merge exactly: what is known about a slice's genes without a second look at it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moments:
    """Number of spots, sum and sum of squares of each gene.

    Plain float64 sums: exact, hence in any order, for counts while a gene's sum of squares stays below 2⁵³.

    Attributes
    ----------
    n
        Spots.
    total
        (g,) float64, sum over the spots, in the unit of the values.
    squares
        (g,) float64, sum of squares, in the squared unit.
    """

    n: int
    total: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def of(cls, block: sparse.csr_matrix, *, limit: NDArray[np.float64] | None = None) -> "Moments":
        """Moments of the rows of `block`.

        Parameters
        ----------
        block : (m, g) csr_matrix
            Values; entries that are not stored are zeros.
        limit : (g,) float64, optional
            Values above their gene's limit count as the limit. Limits must not be negative.
        """
        value = block.data.astype(np.float64)
        if limit is not None:
            np.minimum(value, limit[block.indices], out=value)
        g = block.shape[1]
        return cls(
            n=block.shape[0],
            # a bincount of nothing is of integers
            total=np.bincount(block.indices, weights=value, minlength=g).astype(np.float64, copy=False),
            squares=np.bincount(block.indices, weights=value * value, minlength=g).astype(np.float64, copy=False),
        )

    @classmethod
    def merge(cls, parts: Sequence["Moments"]) -> "Moments":
        """Moments of all spots of `parts`, at least one, summed in the order given."""
        total, squares = parts[0].total.copy(), parts[0].squares.copy()
        for part in parts[1:]:
            total += part.total
            squares += part.squares
        return cls(n=sum(part.n for part in parts), total=total, squares=squares)

    def mean(self) -> NDArray[np.float64]:
        """Mean of each gene, (g,); 0 when there is no spot."""
        return self.total / max(self.n, 1)

    def variance(self) -> NDArray[np.float64]:
        """Unbiased variance (ddof = 1) of each gene, (g,); 0 when there are fewer than two spots.

        A variance below the rounding error of its two sums is 0, so that a constant gene counts as constant.
        """
        if self.n < 2:
            return np.zeros_like(self.total)
        level = self.total * self.mean()
        spread = self.squares - level
        rounding = np.finfo(np.float64).eps * (4 + np.sqrt(self.n))
        spread[spread <= rounding * self.squares] = 0.0
        return spread / (self.n - 1)
