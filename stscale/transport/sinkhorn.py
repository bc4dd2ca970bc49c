"""Entropic optimal transport in the log domain, batched, with exact or relaxed marginals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from stscale.errors import InputError

CHECK = 10
"""Iterations between two looks at the error: each look waits for the device."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Coupling:
    """What `sinkhorn` found.

    Attributes
    ----------
    log_ratio
        (..., n, p) logarithm of the plan over the product of the marginals, finite where the cost is.
    plan
        (..., n, p) masses.
    phi, psi
        (..., n) and (..., p) potentials in units of ε: `plan = μ νᵀ exp(φ + ψ − C/ε)`. They start the next call.
    error
        (...) of each problem: L1 distance of the row sums of the plan from what the potentials ask for (from μ when
        the marginals are exact), over the mass of μ. Column sums are exact to rounding.
    converged
        (...) bool, `error` is within the tolerance.
    iterations
        Rounds made.
    """

    log_ratio: Tensor
    plan: Tensor
    phi: Tensor
    psi: Tensor
    error: Tensor
    converged: Tensor
    iterations: int


@torch.no_grad()
def sinkhorn(
    cost: Tensor,
    mu: Tensor | None = None,
    nu: Tensor | None = None,
    *,
    epsilon: float = 0.05,
    tau_rows: float = math.inf,
    tau_columns: float = math.inf,
    tolerance: float = 1e-6,
    max_iterations: int = 1000,
    start: tuple[Tensor, Tensor] | None = None,
) -> Coupling:
    """Solve entropic optimal transport by alternating updates of the potentials, in logarithms.

    min_Q ⟨C, Q⟩ + ε KL(Q | μνᵀ) + τ_r KL(Q1 | μ) + τ_c KL(Qᵀ1 | ν), where τ = ∞ makes a marginal exact. With both
    exact this is the minimum of ⟨C, Q⟩ − ε H(Q). The update is φ = −ρ LSE_j(log ν + ψ − C/ε), ρ = τ/(τ + ε).
    No gradient is recorded.

    Parameters
    ----------
    cost
        (..., n, p) float32 or float64 on any device; leading dimensions are independent problems. A score R is
        passed as −R.
    mu, nu
        (..., n) and (..., p) masses ≥ 0; uniform with sum 1 when not given. Without leading dimensions they serve
        every problem. With exact marginals their sums must agree.
    epsilon
        Weight of the entropy, in units of the cost.
    tau_rows, tau_columns
        Weights of the marginals, in units of the cost; infinite: exact.
    tolerance
        Relative L1 error of the rows at which to stop. Below about 1e-6 it needs float64.
    max_iterations
        Rounds after which to stop anyway; `converged` then says so.
    start
        (φ, ψ) of an earlier call.

    Returns
    -------
    Coupling
        Plan, potentials, error and whether the tolerance was reached.

    Raises
    ------
    InputError
        Shapes that do not fit, ε or τ not above 0, masses below 0 or of different sums.

    References
    ----------
    Cuturi, "Sinkhorn distances" (NIPS 2013); Chizat et al., "Scaling algorithms for unbalanced optimal transport
    problems", Math. Comp. 87 (2018).
    """
    mu, nu = _masses(cost, mu, nu, exact=math.isinf(tau_rows) and math.isinf(tau_columns))
    for name, value in (("epsilon", epsilon), ("tau_rows", tau_rows), ("tau_columns", tau_columns)):
        if not value > 0:
            raise InputError(f"{name} = {value}; expected a number above 0")
    rho_rows, rho_columns = _damping(tau_rows, epsilon), _damping(tau_columns, epsilon)
    kernel = cost / -epsilon
    log_mu, log_nu = mu.log(), nu.log()
    phi, psi = (torch.zeros_like(mu), torch.zeros_like(nu)) if start is None else start
    total = mu.sum(-1)
    done = 0
    while True:
        free = torch.logsumexp(kernel + (log_nu + psi)[..., None, :], dim=-1)  # (..., n)
        if done % CHECK == 0 or done >= max_iterations:
            # columns hold since the last round; what the potentials ask of the rows is μ exp(−φ ε/τ)
            asked = torch.exp(-phi * (epsilon / tau_rows))
            error = (mu * (torch.exp(phi + free) - asked).abs()).sum(-1) / total
            converged = error <= tolerance
            if done >= max_iterations or (done and bool(converged.all())):
                break
        phi = -rho_rows * free
        psi = -rho_columns * torch.logsumexp(kernel + (log_mu + phi)[..., :, None], dim=-2)
        done += 1
    log_ratio = kernel + phi[..., :, None] + psi[..., None, :]
    plan = torch.exp(log_ratio + log_mu[..., :, None] + log_nu[..., None, :])
    return Coupling(log_ratio=log_ratio, plan=plan, phi=phi, psi=psi, error=error, converged=converged, iterations=done)


@torch.no_grad()
def round_to_marginals(plan: Tensor, mu: Tensor, nu: Tensor) -> Tensor:
    """Move a nearly feasible plan onto the exact marginals.

    Rows and columns that hold too much are scaled down, and what is missing is added as a product of the two
    deficits. The L1 distance moved is at most twice the error of the marginals.

    Parameters
    ----------
    plan
        (n, p) masses ≥ 0.
    mu, nu
        (n,) and (p,) masses of equal sum.

    Returns
    -------
    Tensor
        (n, p) with row sums μ and column sums ν, to rounding.

    References
    ----------
    Altschuler, Weed, Rigollet, "Near-linear time approximation algorithms for optimal transport via Sinkhorn
    iteration" (NIPS 2017), algorithm 2.
    """
    tiny = torch.finfo(plan.dtype).tiny
    plan = plan * (mu / plan.sum(1).clamp_min(tiny)).clamp(max=1.0)[:, None]
    plan = plan * (nu / plan.sum(0).clamp_min(tiny)).clamp(max=1.0)
    rows, columns = (mu - plan.sum(1)).clamp_min(0), (nu - plan.sum(0)).clamp_min(0)
    return plan + rows[:, None] * (columns / rows.sum().clamp_min(tiny))


def _damping(tau: float, epsilon: float) -> float:
    return 1.0 if math.isinf(tau) else tau / (tau + epsilon)


def _masses(cost: Tensor, mu: Tensor | None, nu: Tensor | None, *, exact: bool) -> tuple[Tensor, Tensor]:
    """Check the marginals, or make uniform ones, with the cost's leading dimensions."""
    if cost.ndim < 2 or not cost.is_floating_point() or 0 in cost.shape[-2:]:
        raise InputError(f"cost is {cost.dtype} of shape {tuple(cost.shape)}; expected (..., n, p) of floats")
    if not bool(torch.isfinite(cost).all()):
        raise InputError("cost holds values that are not finite; a forbidden pair is given a large finite cost")
    out = []
    for name, mass, shape in (("mu", mu, cost.shape[:-1]), ("nu", nu, (*cost.shape[:-2], cost.shape[-1]))):
        given = cost.new_full(shape[-1:], 1 / shape[-1]) if mass is None else mass.to(cost)
        if given.shape[-1] != shape[-1] or given.ndim > len(shape):
            raise InputError(f"{name} has shape {tuple(given.shape)}; expected {tuple(shape)}")
        if not bool((given >= 0).all()) or not bool((given.sum(-1) > 0).all()):
            raise InputError(f"{name} holds values below 0, or no mass; expected masses")
        out.append(given.expand(shape))
    totals = [mass.sum(-1) for mass in out]
    if exact and not torch.allclose(totals[0], totals[1], rtol=1e-5, atol=0):
        raise InputError(
            f"mu sums to {float(totals[0].max()):g} and nu to {float(totals[1].max()):g}; "
            "exact marginals need equal sums: scale one, or give tau_rows or tau_columns"
        )
    return out[0], out[1]
