"""Fused Gromov-Wasserstein between a sparse graph and a small dense structure, at linear cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from stscale.errors import InputError
from stscale.transport.sinkhorn import round_to_marginals, sinkhorn

INNER = 200
"""Sinkhorn rounds of one step; steps start from the potentials of the last."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FusedCoupling:
    """What `fused_gw` found.

    Attributes
    ----------
    plan
        (n, p) masses; row sums μ and column sums ν to rounding.
    value
        α GW(Q) + (1 − α)⟨C, Q⟩ of this plan.
    gw
        GW(Q) of this plan.
    iterations
        Steps made.
    change
        L1 change of the plan in the last step over its mass, brought to the length of the first step.
    converged
        The change fell to the tolerance, and the last Sinkhorn call did too. A plan that has not converged is a
        feasible plan all the same.
    """

    plan: Tensor
    value: float
    gw: float
    iterations: int
    change: float
    converged: bool


@torch.no_grad()
def gromov_wasserstein(A: Tensor | sp.sparray | sp.spmatrix, B: Tensor, plan: Tensor) -> float:
    """Return GW(Q) = μᵀ(A∘A)μ + νᵀ(B∘B)ν − 2 tr(QᵀAQBᵀ), which is Σ (A_ik − B_jl)² Q_ij Q_kl.

    Parameters
    ----------
    A
        (n, n) sparse.
    B
        (p, p) dense.
    plan
        (n, p), Q; μ and ν are its row and column sums. O(E·p + n·p²).
    """
    graph = _sparse(A, plan)
    return float(_constant(graph, B.to(plan), plan.sum(1), plan.sum(0)) - 2 * _cross(graph, B.to(plan), plan))


@torch.no_grad()
def fused_gw(
    A: Tensor | sp.sparray | sp.spmatrix,
    B: Tensor,
    cost: Tensor,
    mu: Tensor | None = None,
    nu: Tensor | None = None,
    *,
    alpha: float = 0.7,
    epsilon: float = 0.0,
    step: float = 0.1,
    tolerance: float = 1e-4,
    max_iterations: int = 500,
    start: Tensor | None = None,
) -> FusedCoupling:
    """Minimise F(Q) = α Σ (A_ik − B_jl)² Q_ij Q_kl + (1 − α)⟨C, Q⟩ + ε KL(Q | μνᵀ) over plans of marginals μ, ν.

    Mirror descent: Q ← argmin ⟨∇F(Q_t), Q⟩ + ε KL(Q | μνᵀ) + γ KL(Q | Q_t), a Sinkhorn problem of cost
    ∇F − γ log(Q_t/μνᵀ). The gradient needs A only as a factor, −2α(AQBᵀ + AᵀQB), so no n × n array is formed:
    O(E·p + n·p²) a step. γ is doubled when a step would raise F. The problem is not convex: a stationary point is
    found, the one that the start leads to.

    Parameters
    ----------
    A
        (n, n) structure of the nodes, sparse: torch COO or CSR, or SciPy.
    B
        (p, p) structure of the prototypes, dense.
    cost
        (n, p) float32 or float64 on any device, C (a score R is passed as −R). Everything is moved to its dtype
        and device.
    mu, nu
        (n,) and (p,) masses > 0 of equal sum; uniform with sum 1 when not given.
    alpha
        Weight of the structure, 0 … 1.
    epsilon
        Weight of the entropy that stays in the problem; 0 solves the problem itself.
    step
        γ at the start, as a share of the largest difference of the gradient within a row.
    tolerance
        `change` at which to stop.
    max_iterations
        Steps after which to stop anyway; `converged` then says so.
    start
        (n, p) plan to start from; μνᵀ when not given.

    Raises
    ------
    InputError
        Shapes that do not fit, α outside 0 … 1, ε below 0, step not above 0, masses not above 0 or of other sums.

    References
    ----------
    Peyré, Cuturi, Solomon, "Gromov-Wasserstein averaging of kernel and distance matrices" (ICML 2016); Vayer et al.,
    "Optimal transport for structured data with application on graphs" (ICML 2019); the proximal form: Xu et al.,
    "Gromov-Wasserstein learning for graph matching and node embedding" (ICML 2019).
    """
    mu, nu = _checked(A, B, cost, mu, nu, alpha=alpha, epsilon=epsilon, step=step)
    graph, B = _sparse(A, cost), B.to(cost)
    product = mu[:, None] * nu  # (n, p)
    plan = product if start is None else round_to_marginals(start.to(cost), mu, nu)
    tiny = torch.finfo(cost.dtype).tiny
    ratio = (plan / product).clamp_min(tiny).log()
    potentials = (torch.zeros_like(mu), torch.zeros_like(nu))
    fixed = _constant(graph, B, mu, nu)

    def value(q: Tensor, log_ratio: Tensor) -> float:
        inner = alpha * (fixed - 2 * _cross(graph, B, q)) + (1 - alpha) * (cost * q).sum()
        return float(inner + epsilon * (q * log_ratio).sum())

    gamma = first = 0.0
    now, done, change, converged = value(plan, ratio), 0, float("inf"), False
    inner = max(tolerance / 100, 10 * torch.finfo(cost.dtype).eps)
    slack = 2 * inner * max(abs(now), float(fixed))  # marginals that hold to `inner` change the value that much
    while done < max_iterations and not converged:
        gradient = (1 - alpha) * cost - 2 * alpha * _both(graph, B, plan)
        if gamma == 0.0:
            gamma = first = step * float((gradient.amax(1) - gradient.amin(1)).max()) or 1.0
        found = sinkhorn(
            gradient - gamma * ratio,
            mu,
            nu,
            epsilon=epsilon + gamma,
            tolerance=inner,
            max_iterations=INNER,
            start=potentials,
        )
        done += 1
        after = value(found.plan, found.log_ratio)
        if after > now + slack:
            gamma *= 2.0
            continue
        # a shorter step moves less: what counts is the movement of a step of the first length
        change = float((found.plan - plan).abs().sum() / mu.sum()) * gamma / first
        converged = change <= tolerance and bool(found.converged)
        plan, ratio, potentials, now = found.plan, found.log_ratio, (found.phi, found.psi), after
    plan = round_to_marginals(plan, mu, nu)
    gw = float(fixed - 2 * _cross(graph, B, plan))
    total = alpha * gw + (1 - alpha) * float((cost * plan).sum())
    return FusedCoupling(plan=plan, value=total, gw=gw, iterations=done, change=change, converged=converged)


def _both(graph: Tensor, B: Tensor, plan: Tensor) -> Tensor:
    """Return AQBᵀ + AᵀQB, (n, p)."""
    return graph @ (plan @ B.T) + graph.t() @ (plan @ B)


def _cross(graph: Tensor, B: Tensor, plan: Tensor) -> Tensor:
    """Return tr(QᵀAQBᵀ), a scalar."""
    return (plan * (graph @ (plan @ B.T))).sum()


def _constant(graph: Tensor, B: Tensor, mu: Tensor, nu: Tensor) -> Tensor:
    """Return μᵀ(A∘A)μ + νᵀ(B∘B)ν, a scalar."""
    row, column = graph.indices()
    return (mu[row] * graph.values() ** 2 * mu[column]).sum() + nu @ (B**2 @ nu)


def _sparse(A: Tensor | sp.sparray | sp.spmatrix, like: Tensor) -> Tensor:
    """Bring a sparse matrix to torch COO of the dtype and device of `like`."""
    if isinstance(A, Tensor):
        return A.to_sparse(layout=torch.sparse_coo).to(like).coalesce()
    entries = sp.coo_array(A)
    place = torch.from_numpy(np.stack([entries.row, entries.col]).astype(np.int64))
    values = torch.from_numpy(np.asarray(entries.data, np.float64))
    return torch.sparse_coo_tensor(place, values, entries.shape, check_invariants=False).to(like).coalesce()


def _checked(
    A: Tensor | sp.sparray | sp.spmatrix,
    B: Tensor,
    cost: Tensor,
    mu: Tensor | None,
    nu: Tensor | None,
    *,
    alpha: float,
    epsilon: float,
    step: float,
) -> tuple[Tensor, Tensor]:
    """Check everything that `sinkhorn` does not; return the marginals."""
    if cost.ndim != 2 or tuple(A.shape) != (len(cost), len(cost)) or tuple(B.shape) != (cost.shape[1],) * 2:
        raise InputError(
            f"A is {tuple(A.shape)}, B {tuple(B.shape)}, cost {tuple(cost.shape)}; expected (n, n), (p, p), (n, p)"
        )
    if not 0.0 <= alpha <= 1.0 or epsilon < 0.0 or not step > 0.0:
        raise InputError(f"alpha = {alpha}, epsilon = {epsilon}, step = {step}; expected 0 … 1, ≥ 0 and > 0")
    masses = []
    for name, mass, size in (("mu", mu, len(cost)), ("nu", nu, cost.shape[1])):
        given = cost.new_full((size,), 1 / size) if mass is None else mass.to(cost)
        if given.shape != (size,) or not bool((given > 0).all()):
            raise InputError(f"{name} has shape {tuple(given.shape)}; expected ({size},) masses above 0")
        masses.append(given)
    return masses[0], masses[1]
