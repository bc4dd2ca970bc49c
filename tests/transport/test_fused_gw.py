"""Sparse fused Gromov-Wasserstein against the definition, vectors and POT's dense solvers."""

import warnings

import numpy as np
import ot
import pytest
import scipy.sparse as sp
import torch

from stscale.errors import InputError
from stscale.transport import fused_gw, gromov_wasserstein


def tissue(n: int, p: int, seed: int) -> tuple[sp.csr_array, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A 6-neighbour graph, prototypes' similarities, minus scores, and unequal prototype masses."""
    g = np.random.default_rng(seed)
    xy = g.random((n, 2))
    near = np.argsort(((xy[:, None] - xy) ** 2).sum(-1), axis=1)[:, 1:7]
    half = sp.csr_array((np.ones(n * 6), (np.repeat(np.arange(n), 6), near.ravel())), shape=(n, n))
    z = np.c_[np.sin(4 * xy), xy] @ g.normal(size=(4, 8)) + 0.3 * g.normal(size=(n, 8))
    s = z[g.choice(n, p, replace=False)]
    z, s = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (z, s))
    nu = g.dirichlet(np.full(p, 5.0))
    return half.maximum(half.T), *(torch.from_numpy(v) for v in (s @ s.T, -z @ s.T, nu))


def test_vectors(vectors) -> None:
    v = vectors("fused_gw")
    n = int(v["n"])
    A = sp.csr_array((np.ones(v["edges"].shape[1]), tuple(v["edges"])), shape=(n, n))
    plan, B, cost = (torch.from_numpy(v[k]) for k in ("plan", "B", "cost"))
    gw = gromov_wasserstein(A, B, plan)
    assert gw == pytest.approx(float(v["gw"]), abs=1e-12)
    alpha = float(v["alpha"])
    assert alpha * gw + (1 - alpha) * float((cost * plan).sum()) == pytest.approx(float(v["value"]), abs=1e-12)
    # the solver starts from that plan and improves on it, with its marginals
    found = fused_gw(A, B, cost, plan.sum(1), plan.sum(0), alpha=alpha, start=plan)
    assert found.value < float(v["value"]) - 1e-3


def test_the_definition_by_loops_also_where_nothing_is_symmetric() -> None:
    g = np.random.default_rng(0)
    A, B, Q = g.normal(size=(6, 6)) * (g.random((6, 6)) < 0.5), g.normal(size=(3, 3)), g.random((6, 3))
    naive = sum(
        (A[i, k] - B[j, m]) ** 2 * Q[i, j] * Q[k, m]
        for i in range(6)
        for j in range(3)
        for k in range(6)
        for m in range(3)
    )
    for matrix in (sp.csr_array(A), torch.from_numpy(A).to_sparse_coo()):
        assert gromov_wasserstein(matrix, torch.from_numpy(B), torch.from_numpy(Q)) == pytest.approx(naive, rel=1e-12)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("alpha", [0.3, 0.7])
def test_objective_of_dense_conditional_gradient(seed: int, alpha: float) -> None:
    A, B, cost, nu = tissue(250, 6, seed)
    found = fused_gw(A, B, cost, nu=nu, alpha=alpha)
    assert found.converged
    mu = np.full(250, 1 / 250)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the dense solver warns of its own accuracy
        _, log = ot.gromov.fused_gromov_wasserstein(
            cost.numpy(), A.toarray(), B.numpy(), mu, nu.numpy(), alpha=alpha, log=True
        )
    scale = max(abs(log["fgw_dist"]), 0.1)  # α GW + (1 − α)⟨C, Q⟩ may pass through 0
    assert found.value <= log["fgw_dist"] + 0.01 * scale
    torch.testing.assert_close(found.plan.sum(1), torch.from_numpy(mu), rtol=0, atol=1e-12)
    torch.testing.assert_close(found.plan.sum(0), nu, rtol=0, atol=1e-12)
    assert found.gw == pytest.approx(gromov_wasserstein(A, B, found.plan), rel=1e-9)


@pytest.mark.parametrize("seed", [0, 1])
def test_objective_of_dense_entropic_solver(seed: int) -> None:
    A, B, cost, nu = tissue(200, 5, seed)
    found = fused_gw(A, B, cost, nu=nu, epsilon=0.05)
    plan = ot.gromov.entropic_fused_gromov_wasserstein(
        cost.numpy(), A.toarray(), B.numpy(), np.full(200, 1 / 200), nu.numpy(), alpha=0.7, epsilon=0.05, tol=1e-10
    )
    assert found.converged
    np.testing.assert_allclose(found.plan.numpy(), plan, rtol=0, atol=2e-2 / 200)
    expected = 0.7 * gromov_wasserstein(A, B, torch.from_numpy(plan)) + 0.3 * float((cost.numpy() * plan).sum())
    assert found.value == pytest.approx(expected, rel=0.01)


def test_float32_agrees() -> None:
    A, B, cost, nu = tissue(200, 5, 3)
    double, single = fused_gw(A, B, cost, nu=nu), fused_gw(A, B, cost.float(), nu=nu)
    assert single.plan.dtype == torch.float32
    assert single.value == pytest.approx(double.value, abs=2e-4)
    assert float((single.plan.sum(1) - 1 / 200).abs().max()) < 1e-6
    assert float((single.plan.sum(0) - nu).abs().max()) < 1e-6


def test_a_structure_matches_itself() -> None:
    # a path of four blocks of five nodes; prototypes form the same path, in another order
    order = np.array([2, 0, 3, 1])
    block = np.repeat(np.arange(4), 5)
    close = np.abs(block[:, None] - block) <= 1
    B = torch.from_numpy((np.abs(order[:, None] - order) <= 1).astype(float))
    cost = torch.zeros(20, 4, dtype=torch.float64)
    cost[block == 0, 1] = -0.5  # which end is which
    found = fused_gw(sp.csr_array(close.astype(float)), B, cost, alpha=0.7)
    assert found.gw == pytest.approx(0, abs=1e-3)
    assert order[found.plan.argmax(1).numpy()].tolist() == block.tolist()


def test_no_convergence_is_said_and_the_plan_is_feasible() -> None:
    A, B, cost, nu = tissue(100, 5, 0)
    found = fused_gw(A, B, cost, nu=nu, max_iterations=2)
    assert not found.converged
    assert found.iterations == 2
    assert float((found.plan.sum(0) - nu).abs().max()) < 1e-12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": 1.5}, "alpha"),
        ({"mu": torch.ones(3)}, "mu has shape"),
        ({"nu": torch.tensor([1.0, 0.0])}, "above 0"),
        ({"B": torch.ones(3, 3)}, r"B \(3, 3\)"),
    ],
)
def test_bad_input(arguments: dict, message: str) -> None:
    given = {"A": sp.csr_array(np.eye(4)), "B": torch.ones(2, 2), "cost": torch.zeros(4, 2)} | arguments
    with pytest.raises(InputError, match=message):
        fused_gw(**given)
