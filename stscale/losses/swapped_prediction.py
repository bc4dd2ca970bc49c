"""Swapped prediction: each view predicts the balanced prototype assignment of the other."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Targets:
    """Balanced assignments of spots to prototypes, without gradient.

    Attributes
    ----------
    q
        (..., b, p) rows sum to 1: n times the transport plan.
    error
        (...) L1 distance of the plan's row sums from μ, before the rows were normalised.
    converged
        (...) bool, the error is within the tolerance.
    """

    q: Tensor
    error: Tensor
    converged: Tensor


def swapped_targets(
    scores: Tensor,
    nu: Tensor | None = None,
    *,
    epsilon: float = 0.05,
    max_iterations: int = 50,
    tolerance: float = 1e-3,
) -> Targets:
    """Balance scores into assignments: argmax_Q ⟨R, Q⟩ + ε H(Q) with row sums 1/b and column sums ν.

    Parameters
    ----------
    scores
        (..., b, p) cosines R of spots to prototypes; `torch.stack([r1, r2])` solves both views at once. With several
        ranks the union (`ranks.gathered`), of which a rank takes its rows of `q`.
    nu
        (p,) masses of the prototypes, normalised here; default uniform.
    epsilon
        Weight of the entropy.
    max_iterations, tolerance
        Rounds at most, and L1 error of the rows that is enough; `converged` says which came first.
    """
    raise NotImplementedError


def swapped_prediction(r1: Tensor, r2: Tensor, q1: Tensor, q2: Tensor, tau: float) -> Tensor:
    """Return −½ (⟨Q1, log P2⟩ + ⟨Q2, log P1⟩)/b with P = softmax(R/τ), rows of Q summing to 1.

    Parameters
    ----------
    r1, r2
        (b, p) cosines of the spots to the prototypes in both views.
    q1, q2
        (b, p) targets, `swapped_targets`; no gradient.
    tau
        Temperature τ.

    Returns
    -------
    Tensor
        Scalar: mean cross-entropy over spots and views.
    """
    raise NotImplementedError


def next_graph(graph: Tensor, gram: Tensor, beta: float) -> Tensor:
    """Return the next prototype graph β B + (1 − β) rows(PᵀP), rows scaled to sum 1.

    Parameters
    ----------
    graph
        (p, p) B; the identity at the start.
    gram
        (p, p) PᵀP of assignments P (b, p); batches, views and ranks add.
    beta
        β1 of METHODS: what is kept.
    """
    raise NotImplementedError


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
    raise NotImplementedError
