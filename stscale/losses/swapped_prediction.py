"""Swapped prediction: each view predicts the balanced prototype assignment of the other."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from stscale.errors import InputError
from stscale.losses.precision import full
from stscale.transport import sinkhorn


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Targets:
    """Balanced assignments of spots to prototypes, without gradient.

    Attributes
    ----------
    q
        (..., b, p) rows sum to 1: b times the transport plan, whose mass is 1.
    error
        (...) L1 distance of the plan's row sums from μ, before the rows were normalised.
    converged
        (...) bool, the error is within the tolerance.
    """

    q: Tensor
    error: Tensor
    converged: Tensor


@torch.no_grad()
def swapped_targets(
    scores: Tensor,
    nu: Tensor | None = None,
    *,
    epsilon: float = 0.05,
    max_iterations: int = 50,
    tolerance: float = 1e-3,
) -> Targets:
    """Balance scores into assignments: the plan argmax_T ⟨R, T⟩ + ε H(T) with row sums 1/b and column sums ν, times b.

    Parameters
    ----------
    scores
        (..., b, p) cosines R of spots to prototypes; `torch.stack([r1, r2])` solves both views at once. With several
        ranks the union (`ranks.gathered`), of which a rank takes its rows of `q`.
    nu
        (p,) masses of the prototypes, scaled to sum 1 here; default uniform.
    epsilon
        Weight of the entropy, in units of the scores.
    max_iterations, tolerance
        Rounds at most, and L1 error of the rows that is enough; `converged` says which came first.

    Returns
    -------
    Targets
        Rows sum to 1 whatever the error: an unconverged plan misses μ, and after scaling its columns miss ν by as
        much.

    Raises
    ------
    InputError
        Shapes that do not fit, scores that are not finite, masses below 0.

    References
    ----------
    MHAL (CVPR 2026); Caron et al., "Unsupervised learning of visual features by contrasting cluster assignments"
    (NeurIPS 2020).
    """
    with torch.autocast(scores.device.type, enabled=False):
        scores = full(scores)
        if nu is not None:
            nu = full(nu)
            nu = nu / nu.sum()
        plan = sinkhorn(-scores, nu=nu, epsilon=epsilon, max_iterations=max_iterations, tolerance=tolerance)
        # from the logarithms: rows of very small mass keep their shares
        log_rows = plan.log_ratio if nu is None else plan.log_ratio + nu.to(scores).log()
        return Targets(q=torch.softmax(log_rows, dim=-1), error=plan.error, converged=plan.converged)


def swapped_prediction(r1: Tensor, r2: Tensor, q1: Tensor, q2: Tensor, tau: float) -> Tensor:
    """Return −½ (⟨Q1, log P2⟩ + ⟨Q2, log P1⟩)/b with P = softmax(R/τ), rows of Q summing to 1.

    With the transport plans T = Q/b, whose mass is 1, that is −½ (⟨T1, log P2⟩ + ⟨T2, log P1⟩): the division by b is
    made once.

    Parameters
    ----------
    r1, r2
        (b, p) cosines of the spots to the prototypes in both views.
    q1, q2
        (b, p) targets, `swapped_targets`; no gradient reaches them.
    tau
        Temperature τ > 0.

    Returns
    -------
    Tensor
        Scalar, mean cross-entropy over spots and views; parts of several ranks combine by `ranks.mean(…, b)`.

    Raises
    ------
    InputError
        τ not above 0.

    References
    ----------
    MHAL (CVPR 2026), L_PCL.
    """
    if not tau > 0:
        raise InputError(f"tau = {tau}; expected a number above 0")
    log_p1, log_p2 = (log_softmax(full(r) / tau, dim=1) for r in (r1, r2))
    return -((q1.detach() * log_p2).sum() + (q2.detach() * log_p1).sum()) / (2 * len(r1))


@torch.no_grad()
def next_graph(graph: Tensor, gram: Tensor, beta: float) -> Tensor:
    """Return the next prototype graph β B + (1 − β) rows(PᵀP), rows scaled to sum 1.

    Parameters
    ----------
    graph
        (p, p) B; the identity at the start.
    gram
        (p, p) PᵀP of assignments P (b, p); batches, views and ranks add.
    beta
        β1: what is kept.
    """
    gram = gram.to(graph)
    return graph.lerp(gram / gram.sum(dim=1, keepdim=True).clamp(min=torch.finfo(graph.dtype).tiny), 1 - beta)


@torch.no_grad()
def next_marginal(nu: Tensor, mass: Tensor, beta: float) -> Tensor:
    """Return the next prototype masses β ν + (1 − β) Pᵀ1/b.

    Parameters
    ----------
    nu
        (p,) masses that sum to 1.
    mass
        (p,) Pᵀ1 of assignments P (b, p) whose rows sum to 1; batches, views and ranks add. Scaled to sum 1 here,
        which divides by the spots.
    beta
        β2: what is kept.
    """
    mass = mass.to(nu)
    return nu.lerp(mass / mass.sum(), 1 - beta)
