"""Optimal transport between spots and prototypes, anchors or spots: the solvers, and the plan as an operator."""

from stscale.transport.fused_gw import FusedCoupling, fused_gw, gromov_wasserstein
from stscale.transport.plan import Plan
from stscale.transport.sinkhorn import Coupling, round_to_marginals, sinkhorn
from stscale.transport.sparse_sinkhorn import SparseCoupling, sparse_sinkhorn

__all__ = [
    "Coupling",
    "FusedCoupling",
    "Plan",
    "SparseCoupling",
    "fused_gw",
    "gromov_wasserstein",
    "round_to_marginals",
    "sinkhorn",
    "sparse_sinkhorn",
]
