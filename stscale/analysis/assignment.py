"""Domains of MHAL: spots assigned to learned prototypes by features and structure together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from stscale.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from stscale.config import Mhal
    from stscale.graphs.csr import Graph

ROWS = 65_536
"""Latents read at a time."""

EPSILON = 0.01
"""Entropy of the plan, in units of a cosine: next to nothing, but without any the solver's last steps crawl."""

START_EPSILON = 0.5
"""The same of the plan that the structured one starts from: a crisp start keeps spots that their neighbours disown."""

TOLERANCE = 1e-3
"""Share of the mass that may still move in a step of the solver: fewer than one spot in 500 then changes place."""

STEPS = 100


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prototypes:
    """What a trained MHAL says of its prototypes.

    Attributes
    ----------
    vectors
        (p, d) prototypes S.
    graph
        (p, p) their graph B, rows sum to 1.
    mass
        (p,) their masses ν, sum 1.
    eta
        η: share of the feature graph in A_f = ηA₂ + (1 − η)A₁; ½ for a network without attention.
    """

    vectors: Tensor
    graph: Tensor
    mass: Tensor
    eta: float

    @classmethod
    def of(cls, state: dict[str, Tensor]) -> Prototypes:
        """Take them from a network's state."""
        names = {"vectors": "prototypes", "graph": "graph", "mass": "mass"}
        if missing := [name for name in names.values() if name not in state]:
            raise InputError(f"the network has no {missing[0]}; it was trained without prototypes")
        eta = float(state["eta.running_mean"]) if "eta.running_mean" in state else 0.5
        return cls(**{k: state[name].float().cpu() for k, name in names.items()}, eta=eta)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Assignment:
    """Spots assigned to prototypes.

    Attributes
    ----------
    labels
        (n,) int32, 0 … K−1: the domain of each spot's largest share, the largest domain first. There are fewer where
        a domain is nobody's first.
    plan
        (n, p) float32 Q, columns in the order of the prototypes; rows sum to 1/n.
    converged
        Whether the solver reached its tolerance; the plan is feasible all the same.
    change
        L1 change of the plan in the last step over its mass.
    iterations
        Steps made.
    """

    labels: NDArray[np.int32]
    plan: NDArray[np.float32]
    converged: bool
    change: float
    iterations: int


def assigned(
    model: Path,
    z: NDArray[np.floating],
    graphs: Sequence[Graph],
    config: Mhal,
    tell: Callable[..., None],
    *,
    k: int,
) -> tuple[NDArray[np.int32], dict[str, Any]]:
    """Assign the spots of a run to the prototypes of its trained network.

    Parameters
    ----------
    model
        `model.pt` of the run.
    z, graphs
        (n, d) latents; spatial and feature graph.
    config
        Weight of the structure; none without "gw".
    tell
        Hears when the solver ran out of steps.
    k
        Domains.

    Returns
    -------
    labels
        (n,) int32.
    record
        How the solver ended, for the manifest.
    """
    import torch

    state = torch.load(model, map_location="cpu", weights_only=True)["state"]
    one = assign(z, Prototypes.of(state), graphs, alpha=0.0 if "gw" in config.without else config.alpha, k=k)
    if not one.converged:
        text = f"the assignment had not converged after {one.iterations} steps; the last moved {one.change:.1g} of it"
        tell("note", text=text)
    return one.labels, {"converged": one.converged, "iterations": one.iterations, "change": one.change}


def assign(
    z: NDArray[np.floating], prototypes: Prototypes, graphs: Sequence[Graph], *, alpha: float, k: int
) -> Assignment:
    """Assign spots to prototypes by sparse fused Gromov-Wasserstein.

    min_Q α Σ (A_ik − B_jl)² Q_ij Q_kl − (1 − α)⟨R, Q⟩ + ε KL(Q | μνᵀ) over plans with row sums 1/n and column sums ν,
    R the cosines of latents and prototypes, A = n · A_f. The factor n makes A a density with respect to the spots'
    masses 1/n: without it the structure's part would vanish as 1/n. α = 0 needs no graph: entropic transport by R
    alone.

    Parameters
    ----------
    z
        (n, d) latents Z3.
    prototypes
        p of them.
    graphs
        Spatial and feature graph of the n spots.
    alpha
        Weight of the structure.
    k
        Domains: prototypes are merged to as many (`merged`), and their columns of the plan added.

    Notes
    -----
    O(E + n p) memory and O(E p + n p²) time a step; nothing n × n.
    """
    import torch

    from stscale.transport import fused_gw, round_to_marginals, sinkhorn

    # float64: the constant part of the structure, about n, hides in float32 by how much a step lowers the objective
    cost = -cosines(z, prototypes.vectors).double()
    mu = torch.full((len(cost),), 1 / len(cost), dtype=torch.float64)
    nu = prototypes.mass.double().clamp(min=1e-6)
    nu = nu / nu.sum()
    entropy = START_EPSILON if alpha else EPSILON
    first = sinkhorn(cost, mu, nu, epsilon=entropy, tolerance=TOLERANCE, max_iterations=2000)
    if alpha == 0:
        plan, converged = round_to_marginals(first.plan, mu, nu), bool(first.converged)
        change, iterations = float(first.error), first.iterations
    else:
        a = fused_adjacency(graphs, prototypes.eta) * np.float32(len(cost))
        found = fused_gw(
            a,
            prototypes.graph,
            cost,
            mu,
            nu,
            alpha=alpha,
            epsilon=EPSILON,
            tolerance=TOLERANCE,
            max_iterations=STEPS,
            start=first.plan,
        )
        plan, converged, change, iterations = found.plan, found.converged, found.change, found.iterations
    domain = merged(prototypes.vectors, k)
    shares = plan.new_zeros(len(plan), int(domain.max()) + 1).index_add_(1, torch.from_numpy(domain), plan)
    labels = shares.argmax(dim=1).numpy()
    sizes = np.bincount(labels, minlength=shares.shape[1])
    rank = np.empty(len(sizes), np.int32)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return Assignment(
        labels=rank[labels], plan=plan.float().numpy(), converged=converged, change=change, iterations=iterations
    )


def merged(vectors: Tensor, k: int) -> NDArray[np.int64]:
    """Return the domain of each prototype, (p,) in 0 … K−1: Ward's merging of the prototypes (p, d) at length 1.

    Of at most K prototypes each is a domain of its own.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from torch.nn.functional import normalize

    if len(vectors) <= k:
        return np.arange(len(vectors))
    tree = linkage(normalize(vectors.double(), dim=1).numpy(), "ward")
    return fcluster(tree, k, "maxclust").astype(np.int64) - 1


def cosines(z: NDArray[np.floating], vectors: Tensor) -> Tensor:
    """Return the cosines of latents (n, d) and prototypes (p, d), (n, p) float32, chunk by chunk."""
    import torch
    from torch.nn.functional import normalize

    from stscale.memory import let_go

    s = normalize(vectors.float(), dim=1)
    out = torch.empty(len(z), len(s))
    for lo in range(0, len(z), ROWS):
        rows = torch.from_numpy(np.array(z[lo : lo + ROWS], dtype=np.float32))
        out[lo : lo + ROWS] = normalize(rows, dim=1) @ s.T
        let_go(z)
    return out


def fused_adjacency(graphs: Sequence[Graph], eta: float) -> sp.csr_array:
    """Return A_f = ηA₂ + (1 − η)A₁, (n, n) sparse float32; A with self-loops and GCN weights."""
    spatial, feature = (_normalised(graph) for graph in graphs)
    return (spatial * np.float32(1 - eta) + feature * np.float32(eta)).tocsr()


def _normalised(graph: Graph) -> sp.csr_array:
    """Return D^-½ (A + I) D^-½ of a graph."""
    n = graph.n
    ones: Any = np.ones(graph.n_edges, np.float32)
    # int32 wherever it reaches: indices are most of the memory
    indptr = graph.indptr.astype(np.int32) if graph.n_edges < 2**31 - n else graph.indptr
    a = sp.csr_array((ones, graph.indices, indptr), shape=(n, n)) + sp.eye_array(n, dtype=np.float32, format="csr")
    scale = sp.diags_array((1.0 / np.sqrt(graph.degree() + 1.0)).astype(np.float32))
    return (scale @ a @ scale).tocsr()
