"""Entropic optimal transport over listed pairs only: O(pairs) time and memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from stscale.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SparseCoupling:
    """What `sparse_sinkhorn` found.

    Attributes
    ----------
    plan
        (n, m) CSR masses, the pattern of the cost.
    error
        L1 distance of the row sums from what the potentials ask for (from μ when exact), over the mass of μ.
    converged
        `error` is within the tolerance.
    iterations
        Rounds made.
    """

    plan: sp.csr_array
    error: float
    converged: bool
    iterations: int


def sparse_sinkhorn(
    cost: sp.csr_array,
    mu: NDArray[np.float64] | None = None,
    nu: NDArray[np.float64] | None = None,
    *,
    epsilon: float,
    tau_rows: float = math.inf,
    tau_columns: float = math.inf,
    tolerance: float = 1e-4,
    max_iterations: int = 500,
) -> SparseCoupling:
    """Solve the problem of `sinkhorn` with mass on the stored pairs only.

    Rows and columns without a pair hold no mass and are left out of the error. With exact marginals the pairs may
    admit no plan at all (a column that no row reaches in time): the error then stays, and `converged` says so.

    Parameters
    ----------
    cost
        (n, m) CSR; every *stored* entry is a pair that may carry mass, also where its cost is 0.
    mu, nu
        (n,) and (m,) masses > 0; uniform with sum 1 when not given.
    epsilon, tau_rows, tau_columns
        As in `sinkhorn`, in units of the cost.
    tolerance
        Relative L1 error of the rows at which to stop.
    max_iterations
        Rounds after which to stop anyway.

    Raises
    ------
    InputError
        No pair, costs that are not finite, masses of another length or not above 0, ε or τ not above 0.
    """
    n, m = cost.shape
    mu = np.full(n, 1 / n) if mu is None else np.asarray(mu, np.float64)
    nu = np.full(m, 1 / m) if nu is None else np.asarray(nu, np.float64)
    _check(cost, mu, nu, {"epsilon": epsilon, "tau_rows": tau_rows, "tau_columns": tau_columns})
    rho_rows = 1.0 if math.isinf(tau_rows) else tau_rows / (tau_rows + epsilon)
    rho_columns = 1.0 if math.isinf(tau_columns) else tau_columns / (tau_columns + epsilon)
    rows, columns = np.flatnonzero(np.diff(cost.indptr)), cost.indices
    by_column = np.argsort(columns, kind="stable")
    row = np.repeat(np.arange(n, dtype=np.int32), np.diff(cost.indptr))
    kernel = cost.data / -epsilon
    row_first = cost.indptr[rows]
    used, column_first = np.unique(columns[by_column], return_index=True)
    kernel_by_column, row_by_column = kernel[by_column], row[by_column]
    log_mu, log_nu = np.log(mu), np.log(nu)
    phi, psi = np.zeros(n), np.zeros(m)
    done = 0
    while True:
        free = _logsumexp(kernel + (log_nu + psi)[columns], row_first)
        asked = np.exp(-phi[rows] * (epsilon / tau_rows))
        error = float((mu[rows] * np.abs(np.exp(phi[rows] + free) - asked)).sum() / mu[rows].sum())
        if done >= max_iterations or (done and error <= tolerance):
            break
        phi[rows] = -rho_rows * free
        psi[used] = -rho_columns * _logsumexp(kernel_by_column + (log_mu + phi)[row_by_column], column_first)
        done += 1
    mass = np.exp(kernel + (log_mu + phi)[row] + (log_nu + psi)[columns])
    plan = sp.csr_array((mass, columns, cost.indptr), shape=(n, m))
    return SparseCoupling(plan=plan, error=error, converged=error <= tolerance, iterations=done)


def _logsumexp(values: NDArray[np.float64], first: NDArray[np.integer]) -> NDArray[np.float64]:
    """Logarithm of the sum of exponentials of every run that starts at `first`; no run is empty."""
    top = np.maximum.reduceat(values, first)
    length = np.diff(np.append(first, len(values)))
    return np.log(np.add.reduceat(np.exp(values - np.repeat(top, length)), first)) + top


def _check(cost: sp.csr_array, mu: NDArray[np.float64], nu: NDArray[np.float64], positive: dict[str, float]) -> None:
    if cost.nnz == 0 or not np.isfinite(cost.data).all():
        raise InputError(f"cost has {cost.nnz} pairs, not all finite or none; expected finite costs of some pairs")
    for name, mass, size in (("mu", mu, cost.shape[0]), ("nu", nu, cost.shape[1])):
        if mass.shape != (size,) or not (mass > 0).all() or not np.isfinite(mass).all():
            raise InputError(f"{name} has shape {mass.shape}; expected ({size},) finite masses above 0")
    for name, value in positive.items():
        if not value > 0:
            raise InputError(f"{name} = {value}; expected a number above 0")
