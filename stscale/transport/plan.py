"""A sparse transport plan between two slices, used as an operator."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from stscale.atomic import atomic_path
from stscale.errors import InputError

BLOCK = 8192
"""Source rows that are composed at once by `Plan.chain`."""

Values = NDArray[np.floating] | Any
"""An array, or a SciPy sparse matrix (SciPy publishes no types)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """Who is matched to whom, and how much of it: W (n_source, n_target) ≥ 0, at most k entries a row.

    Attributes
    ----------
    weights
        (n_source, n_target) CSR float64, sorted, without stored zeros. The masses are not normalised: a row's sum
        is what the source spot gave away (0: it was not matched).

    Raises
    ------
    InputError
        Weights that are negative or not finite.
    """

    weights: sp.csr_array

    def __post_init__(self) -> None:
        clean = sp.csr_array(self.weights, dtype=np.float64, copy=True)
        clean.sum_duplicates()
        if not np.isfinite(clean.data).all() or (clean.data < 0).any():
            raise InputError("plan holds weights that are negative or not finite; expected masses")
        clean.eliminate_zeros()
        object.__setattr__(self, "weights", clean)

    @classmethod
    def from_pairs(
        cls, source: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, *, shape: tuple[int, int]
    ) -> Plan:
        """Make the plan of listed pairs.

        Parameters
        ----------
        source, target
            (m,) rows of the two slices; weights of repeated pairs are added.
        weight
            (m,) masses; 1 each when not given.
        shape
            (n_source, n_target).

        Raises
        ------
        InputError
            Lengths that differ, rows outside the slices, weights that are negative or not finite.
        """
        rows, columns = np.asarray(source, np.int64), np.asarray(target, np.int64)
        mass = np.ones(len(rows)) if weight is None else np.asarray(weight, np.float64)
        if not len(rows) == len(columns) == len(mass):
            raise InputError(
                f"{len(rows)} sources, {len(columns)} targets, {len(mass)} weights; expected equal lengths"
            )
        for name, ids, size in (("source", rows, shape[0]), ("target", columns, shape[1])):
            if len(ids) and (ids.min() < 0 or ids.max() >= size):
                raise InputError(f"{name} rows span {ids.min()} … {ids.max()}; expected 0 … {size - 1}")
        return cls(weights=sp.coo_array((mass, (rows, columns)), shape=shape).tocsr())

    @property
    def shape(self) -> tuple[int, int]:
        """(n_source, n_target)."""
        return self.weights.shape[0], self.weights.shape[1]

    @property
    def coverage(self) -> float:
        """Share of source spots that have a target, 0 … 1."""
        return float(np.mean(np.diff(self.weights.indptr) > 0)) if self.shape[0] else 0.0

    def marginals(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the mass of each source (n_source,) and of each target (n_target,)."""
        return np.asarray(self.weights.sum(axis=1)).ravel(), np.asarray(self.weights.sum(axis=0)).ravel()

    def push(self, x: Values) -> Values:
        """Carry values of source spots to target spots: y_j = Σ_i W_ij x_i / Σ_i W_ij.

        Parameters
        ----------
        x
            (n_source,) or (n_source, d) array, or sparse (n_source, d).

        Returns
        -------
        NDArray or csr_array
            (n_target,) or (n_target, d). Targets without mass are NaN in an array, and empty rows in a sparse matrix.

        Raises
        ------
        InputError
            Another number of rows.
        """
        return _average(self.weights.T.tocsr(), x, "source")

    def pull(self, y: Values) -> Values:
        """Carry values of target spots to source spots: x_i = Σ_j W_ij y_j / Σ_j W_ij, as `push`, backwards."""
        return _average(self.weights, y, "target")

    def best(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the heaviest target of each source (n_source,) and source of each target (n_target,).

        −1 where there is no mass; of equal masses the smaller row wins.
        """
        return _heaviest(self.weights), _heaviest(self.weights.T.tocsr())

    def chain(self, other: Plan, *, k: int = 32) -> Plan:
        """Compose with a plan that starts where this one ends: W_il = Σ_j W_ij W'_jl / Σ_l W'_jl.

        Mass that reaches a middle spot which `other` does not match is lost. At most `k` entries of a row are kept,
        the heaviest; they are scaled to the row's whole mass.

        Parameters
        ----------
        other
            (n_target, n_final) plan.
        k
            Entries to keep per row; all when it is at least their number.

        Raises
        ------
        InputError
            The middle slices differ in size, or k is below 1.
        """
        if self.shape[1] != other.shape[0]:
            raise InputError(f"plans meet in slices of {self.shape[1]} and {other.shape[0]} spots; expected the same")
        if k < 1:
            raise InputError(f"k = {k} entries per row; expected at least 1")
        onward = _normalised(other.weights)
        parts = [_heaviest_k(self.weights[lo : lo + BLOCK] @ onward, k) for lo in range(0, self.shape[0], BLOCK)]
        if not parts:
            return Plan(weights=sp.csr_array((0, other.shape[1])))
        return Plan(weights=sp.vstack(parts, format="csr"))

    def save(self, path: Path) -> None:
        """Write to one .npz, whole or not at all."""
        w = self.weights
        with atomic_path(path) as part, part.open("wb") as file:
            np.savez(file, data=w.data, indices=w.indices, indptr=w.indptr, shape=np.array(w.shape))

    @classmethod
    def load(cls, path: Path) -> Plan:
        """Read a plan written by `save`.

        Raises
        ------
        InputError
            When the file is missing or holds no plan.
        """
        try:
            with path.open("rb") as raw, np.load(raw) as file:
                parts = (file["data"], file["indices"], file["indptr"])
                return cls(weights=sp.csr_array(parts, shape=tuple(int(v) for v in file["shape"])))
        except (OSError, KeyError, ValueError, TypeError, EOFError, BadZipFile) as error:
            raise InputError(f"{path} holds no plan ({error}); align the slices again") from error


def _normalised(weights: sp.csr_array) -> sp.csr_array:
    """Divide rows by their sums; empty rows stay empty."""
    mass = np.asarray(weights.sum(axis=1)).ravel()
    share = weights.data / np.repeat(mass, np.diff(weights.indptr))
    return sp.csr_array((share, weights.indices, weights.indptr), shape=weights.shape)


def _average(weights: sp.csr_array, x: Values, side: str) -> Values:
    """Weighted means of rows of x, one per row of the weights."""
    values = sp.csr_array(x) if sp.issparse(x) else np.asarray(x)
    if values.shape[0] != weights.shape[1]:
        raise InputError(
            f"values have {values.shape[0]} rows; expected one for each of {weights.shape[1]} {side} spots"
        )
    mean = _normalised(weights) @ values
    if sp.issparse(mean):
        return sp.csr_array(mean)
    mean = np.asarray(mean, dtype=np.result_type(values.dtype, np.float32))
    mean[np.diff(weights.indptr) == 0] = np.nan
    return mean


def _heaviest(weights: sp.csr_array) -> NDArray[np.int64]:
    """Column of the largest entry of each row, −1 for empty rows."""
    length = np.diff(weights.indptr)
    rows = np.flatnonzero(length)
    best = np.full(weights.shape[0], -1, np.int64)
    if len(rows):
        top = np.maximum.reduceat(weights.data, weights.indptr[rows])
        winner = np.flatnonzero(weights.data == np.repeat(top, length[rows]))
        row = np.repeat(rows, length[rows])[winner]
        # later writes would win: the first entry of a row is the smallest column
        best[row[::-1]] = weights.indices[winner[::-1]]
    return best


def _heaviest_k(weights: sp.csr_array, k: int) -> sp.csr_array:
    """Keep the k largest entries of each row, scaled to the row's sum."""
    weights = sp.csr_array(weights)
    length = np.diff(weights.indptr)
    if not (length > k).any():
        return weights
    row = np.repeat(np.arange(weights.shape[0]), length)
    order = np.lexsort((weights.indices, -weights.data, row))
    rank = np.empty(len(row), np.int64)
    rank[order] = np.arange(len(row)) - np.repeat(weights.indptr[:-1], length)
    kept = rank < k
    mass = np.bincount(row, weights.data, minlength=weights.shape[0])
    left = np.bincount(row[kept], weights.data[kept], minlength=weights.shape[0])
    data = weights.data[kept] * (mass[row[kept]] / left[row[kept]])
    return sp.coo_array((data, (row[kept], weights.indices[kept])), shape=weights.shape).tocsr()
