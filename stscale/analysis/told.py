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
        self._around = [mean_around(indptr, indices, lo, hi, itself=False) for lo, hi in parts]
        values = [np.array(read(lo, hi), np.float64) for lo, hi in parts]
        centre = np.sum([part.sum(axis=0) for part in values], axis=0) / len(self.rows)
        noise, known = np.zeros((len(centre), len(centre))), 0
        for part, around in zip(values, self._around, strict=True):
            part -= centre
            beside = np.diff(around.indptr) > 0
            untold = (part - around @ part)[beside]
            noise += untold.T @ untold
            known += int(beside.sum())
        noise /= max(known, 1)
        noise.flat[:: len(noise) + 1] += max(RIDGE * float(np.trace(noise)) / max(len(noise), 1), 1e-300)
        factor = np.linalg.cholesky(noise)
        self._values = [linalg.solve_triangular(factor, part.T, lower=True).T for part in values]

    def told(self, domains: NDArray[np.integer]) -> float | None:
        """Return T of domains; None where no spot has a neighbour, or all spots are alike.

        Parameters
        ----------
        domains
            (m,) of `rows`, from 0.
        """
        k, width = int(np.max(domains)) + 1, self._values[0].shape[1]
        pieces = np.split(domains, np.cumsum([len(part) for part in self._values])[:-1])
        own = [sparse.csr_matrix((np.ones(len(d)), (np.arange(len(d)), d)), shape=(len(d), k)) for d in pieces]
        mass, sums = np.zeros(k), np.zeros((k, width))
        for part, of in zip(self._values, own, strict=True):
            mass += np.asarray(of.sum(axis=0)).ravel()
            sums += of.T @ part
        mean = sums / np.maximum(mass, 1.0)[:, None]
        error, squares, whole, known = 0.0, 0.0, np.zeros(width), 0
        for part, of, around in zip(self._values, own, self._around, strict=True):
            beside = np.diff(around.indptr) > 0
            seen = part[beside]
            error += float(np.sum((seen - (around @ of @ mean)[beside]) ** 2))
            squares += float(np.sum(seen**2))
            whole += seen.sum(axis=0)
            known += len(seen)
        total = squares - float(np.sum(whole**2)) / max(known, 1)
        return 1.0 - error / total if total > 1e-12 * squares else None
