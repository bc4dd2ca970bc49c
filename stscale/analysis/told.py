"""What the domains of the spots around it tell of a spot: domains of any embedding, judged in one space.

With w the principal components of single spots, whitened by the covariance of what neighbours do not tell of them
(y_i − mean of y over the neighbours of i), and p_ik the share of domain k among the neighbours of spot i,

    T = 1 − Σ_i ‖w_i − Σ_k p_ik μ_k‖² / Σ_i ‖w_i − w̄‖²

is the share of a spot's variance, counted in units of noise, that follows from where it lies. Domains of noise tell
nothing, as neighbours have others; blurred ones tell less near borders; and domains that leave out a kind of tissue
tell less of it. It has no scale of an embedding in it, so it compares embeddings. A spot's own values enter the
domains of its neighbours where these were averaged over it: compare averages over as many rounds, or T of few rounds
is a little too high.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from stscale.analysis.windows import mean_around, windows

RIDGE = 1e-9
"""Added to the covariance of what is not told, in its mean variance."""


class Surroundings:
    """Some of the tissue with what lies around its spots, read once for all embeddings that are compared.

    Parameters
    ----------
    read
        Rows lo to hi of the components, (hi − lo, p), in Hilbert order within each slice.
    indptr, indices
        (n + 1,) and (E,) the spatial graph in CSR form. Edges out of a window of rows are left out.

    Attributes
    ----------
    rows
        (m,) int64 ascending, which rows these are.
    """

    def __init__(
        self,
        read: Callable[[int, int], NDArray[np.floating]],
        indptr: NDArray[np.integer],
        indices: NDArray[np.integer],
    ) -> None:
        parts = windows(len(indptr) - 1)
        self.rows = np.concatenate([np.arange(lo, hi) for lo, hi in parts])
        around = [mean_around(indptr, indices, lo, hi, itself=False) for lo, hi in parts]
        self._around = sparse.csr_matrix(sparse.block_diag(around, format="csr"))
        self._known = np.diff(self._around.indptr) > 0
        values = np.concatenate([np.asarray(read(lo, hi), np.float64) for lo, hi in parts])
        values -= values.mean(axis=0)
        untold = (values - self._around @ values)[self._known]
        if untold.size:
            noise = untold.T @ untold / len(untold)
            noise.flat[:: len(noise) + 1] += max(RIDGE * float(np.trace(noise)) / len(noise), 1e-300)
            values = linalg.solve_triangular(np.linalg.cholesky(noise), values.T, lower=True).T
        self._values = values

    def told(self, domains: NDArray[np.integer]) -> float | None:
        """Return T of domains; None where no spot has a neighbour, or all spots are alike.

        Parameters
        ----------
        domains
            (m,) of `rows`, from 0.
        """
        own = sparse.csr_matrix((np.ones(len(domains)), (np.arange(len(domains)), domains)))
        mean = (own.T @ self._values) / np.maximum(np.asarray(own.sum(axis=0)).ravel(), 1.0)[:, None]
        known = self._values[self._known]
        error = float(np.sum((known - (self._around @ own @ mean)[self._known]) ** 2))
        total = float(np.sum((known - known.mean(axis=0)) ** 2)) if known.size else 0.0
        return 1.0 - error / total if total > 0.0 else None
