"""Exact principal components of sparse rows that are seen once: a streamed Gram matrix and its eigenvectors.

With row sums S_i and centres c_i of slice i (n_i rows), the centred Gram matrix is

    Σ (x − c)ᵀ(x − c) = XᵀX − HᵀC − CᵀH,   H_i = S_i − n_i·c_i / 2

so XᵀX and the sums are all that has to be kept: (g, g) + (s, g) float64, whatever the number of rows.
A gene a slice lacks is filled with its centre there: centred it is 0, and sums over rows are of those that have both
genes. Slices may tell more of a gene than others: with weights p_ij ≥ 0 of gene j in slice i, 0 where it lacks it,
values enter as √p_ij (x − c), and sums divided by (Σ_i n_i √(p_ij p_ik)) / n are the covariance of what is known, whose
largest eigenvectors are the axes. Scores of such slices: `components`.

Most of a spot's variance is counting noise, which all genes have, and so is much of its axes. Rows x_b may be averages
of spots with those around them instead (`surroundings`), whose noise is a small share κ of a spot's; with U_i = Σ x_b
and B_i rows of slice i in place of S_i and n_i, the formula above holds for them. Scores are of spots on these axes.
What genes weigh: `gene_weights`.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stscale.errors import InputError
from stscale.slices.components import Components
from stscale.slices.gene_weights import gene_weights, least_deviation, rare_notes
from stscale.slices.surroundings import Averages, Surroundings

DENSE_BYTES = 16 << 20  # rows made dense at a time
SPARSE_BELOW = 0.06  # share of stored entries below which the sparse product is the faster one (measured)
SLAB = 512  # columns of a sparse product at a time
NOISE_ROUNDS = 3  # of the share of noise, where it depends on itself
SMALL = 512  # genes up to which all eigenvectors are computed directly


class Gram:
    """Accumulator of XᵀX, of the row sums of each slice and of the genes' sums of squares.

    Parameters
    ----------
    weight : (s, g) bool or float64
        p: how much each slice's squared values of a gene count; False or 0 where it lacks it. Such values must not be
        stored.
    surroundings
        What averages the rows that XᵀX is of; None: it is of the rows themselves.
    every
        One of so many rows is kept, to tell how far spots vary along the axes.
    """

    def __init__(
        self,
        weight: NDArray[np.bool_] | NDArray[np.float64],
        surroundings: Surroundings | None = None,
        *,
        every: int = 1,
    ) -> None:
        s, g = weight.shape
        self._every = every
        self._kept: list[tuple[int, sparse.csr_matrix]] = []
        self._present, self._surroundings = weight > 0, surroundings
        self._root = np.sqrt(weight.astype(np.float64))
        self._alike = bool((weight == 1).all())
        self._n, self._sums = np.zeros(s), np.zeros((s, g))  # of values times the root of their weight
        self._squares = np.zeros(g)
        self._seen, self._totals, self._noise = np.zeros(s), np.zeros((s, g)), 0.0  # of averages
        self._gram = np.zeros((g, g), order="F")  # upper triangle; Fortran order is updated in place by BLAS

    def add(self, i: int, rows: sparse.csr_matrix, xy: NDArray[np.float64] | None = None) -> None:
        """Add the next rows (m, g) of slice `i`, slices one after another. The same calls give the same bits.

        `xy` (m, 2 or 3), where the spots are, is needed to average them.
        """
        m, g = rows.shape
        if m == 0:
            return
        first = -int(self._n.sum()) % self._every
        if first < m:
            self._kept.append((i, rows[first :: self._every]))
        self._n[i] += m
        values = rows.data.astype(np.float64)
        if not self._alike:
            values *= self._root[i][rows.indices]
            rows = sparse.csr_matrix((values, rows.indices, rows.indptr), shape=rows.shape)
        self._sums[i] += np.bincount(rows.indices, weights=values, minlength=g)
        self._squares += np.bincount(rows.indices, weights=values * values, minlength=g)
        if self._surroundings is None:
            self._add(rows)
        else:
            if xy is None:
                raise ValueError(
                    "rows were given without xy; pass where their spots are, they are averaged with those near"
                )
            self._average(self._surroundings.add(i, rows, xy))

    def _average(self, found: Iterable[Averages]) -> None:
        for part in found:
            self._seen[part.slice] += part.rows.shape[0]
            self._totals[part.slice] += np.asarray(part.rows.sum(axis=0)).ravel()
            self._noise += part.noise
            self._add(part.rows)

    def _add(self, rows: sparse.csr_matrix) -> None:
        m, g = rows.shape
        if rows.nnz < SPARSE_BELOW * m * g:
            self._add_sparse(rows)
        else:
            self._add_dense(rows)

    def _add_dense(self, rows: sparse.csr_matrix) -> None:
        from scipy.linalg.blas import dsyrk

        m, g = rows.shape
        # float64: a float32 product loses the small components next to the mean, which is not subtracted yet
        step = max(1, DENSE_BYTES // (8 * g))
        for lo in range(0, m, step):
            dense = rows[lo : lo + step].astype(np.float64).toarray()
            self._gram = dsyrk(1.0, dense.T, beta=1.0, c=self._gram, overwrite_c=1)

    def _add_sparse(self, rows: sparse.csr_matrix) -> None:
        by_row = rows.astype(np.float64)
        by_column = by_row.tocsc()
        g = rows.shape[1]
        for lo in range(0, g, SLAB):
            hi = min(lo + SLAB, g)
            product = by_column[:, :hi].T @ by_row[:, lo:hi]  # (hi, hi - lo): the upper triangle and a little more
            self._gram[:hi, lo:hi] += product.toarray(order="F")

    def components(
        self,
        n_pcs: int,
        *,
        center: Literal["all", "slice"] = "all",
        scale: bool = False,
        coherence: float = 0.0,
        rare: Literal["auto", "less", "alike"] = "alike",
        precision: NDArray[np.float64] | None = None,
        seed: int = 0,
    ) -> Components:
        """Principal components of all rows added. May be called once: the Gram matrix is used up.

        Parameters
        ----------
        n_pcs
            Components wanted; fewer are returned, with a note, when the rows have no more.
        center
            ``"all"``: around the mean over all slices. ``"slice"``: around each slice's own mean, which
            takes out whatever shifts a slice as a whole (a linear batch correction, but also true differences).
        scale
            Divide each gene by its standard deviation around that mean first (PCA of the correlations).
        coherence
            Power a of a gene's autocorrelation in its weight; without effect on axes of spots (`gene_weights`).
        rare
            With `scale`, whether genes that few spots have a count of are blown up as others are (`gene_weights`); for
            transformed counts.
        precision
            (s, g), what each slice tells of each gene (`Components`); default: as much of all that it has.
        seed
            Start vector of the iteration for many genes; it does not show in the result beyond rounding.

        Raises
        ------
        InputError
            If there are not at least two spots (`center` ``"slice"``: one more than there are slices).
        """
        from scipy.linalg.blas import dsyr2k

        if self._surroundings is None:
            self._seen, self._totals = self._n, self._sums
        else:
            self._average(self._surroundings.rest())
        g = self._gram.shape[0]
        taken = 1 if center == "all" else int((self._n > 0).sum())
        n, degrees = int(self._n.sum()), int(self._seen.sum()) - taken
        p = min(n_pcs, degrees, g)
        if p < 1:
            raise InputError(
                f"{n} spots of {len(self._n)} slices with {g} genes have no principal component; "
                "at least two spots with counts are needed, with center = 'slice' in one slice"
            )
        notes = () if p == n_pcs else (f"n_pcs = {n_pcs} lowered to {p}: {n} spots, {g} genes",)
        mean, slice_mean = self._means()
        centre = np.where(self._present, mean, 0.0) if center == "all" else slice_mean
        middle = self._root * centre
        half = self._totals - 0.5 * self._seen[:, None] * middle
        gram = dsyr2k(-1.0, half.T, middle.T, beta=1.0, c=self._gram, overwrite_c=1)
        del self._gram
        level = np.sum((2.0 * self._sums - self._n[:, None] * middle) * middle, axis=0)
        variance = np.maximum(self._squares - level, 0.0) / (n - taken)
        if not self._alike:
            # of two genes that no slice has both, nothing is known: 0 stays 0
            variance /= np.maximum(self._n @ self._root**2 / n, 1e-12)
            gram /= np.maximum((self._root.T * self._seen) @ self._root / self._seen.sum(), 1e-12)
        least = least_deviation(variance, rare) if scale else 0.0
        averaged = self._averaged(np.diag(gram) / degrees)
        inverse = gene_weights(variance, *averaged, scale=scale, least=least, coherence=coherence)
        gram *= inverse[:, None]
        gram *= inverse[None, :]
        values, axes = _largest(gram, p, seed)
        self._degrees = n - taken
        found = Components(
            axes=axes * inverse,
            variance=np.maximum(values, 0.0) / degrees,
            noise=np.zeros(p),
            mean=mean,
            slice_mean=slice_mean,
            centre=centre,
            inverse=inverse,
            precision=self._present.astype(np.float64),
            notes=notes + rare_notes(variance, least),
        )
        found = self._told(found, float(variance @ inverse**2))
        return found if precision is None else replace(found, precision=precision)

    def _averaged(self, variance: NDArray[np.float64]) -> tuple[NDArray[np.float64] | None, float]:
        """Return the variance (g,) of rows where they are averages, and the share κ̄ of a spot's noise that is kept."""
        return (None if self._surroundings is None else variance), self._noise / float(self._seen.sum())

    def _told(self, found: Components, total: float) -> Components:
        """Return components with their shares of noise; the variance of all genes is `total`."""
        # scores of slices that lack genes depend on the noise: from least squares on
        for _ in range(1 if self._present.all() else NOISE_ROUNDS):
            found = replace(found, noise=self._noise_share(found, total))
        self._kept = []
        return found

    def _noise_share(self, found: Components, total: float) -> NDArray[np.float64]:
        """Return the share of noise in the variance of the rows kept along each axis, (p,).

        Noise is what the axes leave over of the variance `total` of all genes, on average of the directions left.
        Averages would not tell it: what spots have to themselves, cells of a kind among others, is no noise.
        """
        p, g = found.axes.shape
        squares, count = np.zeros(p), 0
        for i, rows in self._kept:
            scores = found.scores(rows, np.full(rows.shape[0], i)).astype(np.float64)
            squares += np.sum(scores**2, axis=0)
            count += len(scores)
        variance = squares / count
        noise = max(total - float(variance.sum()), 0.0) / max(g - p, 1)
        return np.asarray(np.minimum(noise / np.maximum(variance, 1e-300), 1.0))

    def spread(self, squares: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the variance of the spots along each axis, (p,), after `components`.

        Parameters
        ----------
        squares : (p,) float64
            Sum of the squared scores of all rows.
        """
        return np.asarray(squares / self._degrees)

    def _means(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean of each gene over the slices that have it, and over each slice."""
        sums = np.divide(self._sums, self._root, out=np.zeros_like(self._sums), where=self._present)
        mean = sums.sum(axis=0) / np.maximum(self._n @ self._present, 1.0)
        return mean, sums / np.maximum(self._n, 1.0)[:, None]


def _largest(gram: NDArray[np.float64], p: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Largest eigenvalues (p,), descending, and eigenvectors (p, g) of the upper triangle, signs fixed."""
    from scipy.linalg import eigh
    from scipy.linalg.blas import dsymv
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    g = len(gram)
    values = None
    if g > SMALL and 4 * p < g:
        operator = LinearOperator((g, g), matvec=lambda x: dsymv(1.0, gram, x), dtype=np.float64)
        start = np.random.default_rng(seed).standard_normal(g)
        try:
            values, vectors = eigsh(operator, k=p, which="LA", v0=start, ncv=max(2 * p + 1, 40))
        except ArpackNoConvergence:
            values = None  # clustered eigenvalues: the direct solver takes longer and has no such case
    if values is None:
        values, vectors = eigh(gram, lower=False, subset_by_index=(g - p, g - 1))
    order = np.argsort(-values, kind="stable")
    axes = vectors[:, order].T
    largest = np.abs(axes).argmax(axis=1)
    axes = axes * np.where(axes[np.arange(p), largest] < 0, -1.0, 1.0)[:, None]
    return np.asarray(values[order]), np.ascontiguousarray(axes)
