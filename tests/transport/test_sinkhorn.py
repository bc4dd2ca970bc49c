"""Sinkhorn in the log domain against vectors, POT, its own conditions, and its sparse form."""

import math
import warnings

import numpy as np
import ot
import pytest
import scipy.sparse as sp
import torch

from stscale.errors import InputError
from stscale.transport import round_to_marginals, sinkhorn, sparse_sinkhorn


def problem(n: int = 30, p: int = 20, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    g = np.random.default_rng(seed)
    return g.random((n, p)), g.dirichlet(np.ones(n)), g.dirichlet(np.ones(p))


def test_vectors(vectors) -> None:
    v = {k: torch.from_numpy(a) for k, a in vectors("sinkhorn").items()}
    found = sinkhorn(-v["score"], v["mu"], v["nu"], epsilon=float(v["eps"]), tolerance=1e-13)
    torch.testing.assert_close(found.plan, v["plan"], rtol=0, atol=1e-12)
    assert bool(found.converged)
    single = sinkhorn(-v["score"].float(), v["mu"], v["nu"], epsilon=float(v["eps"]), tolerance=1e-6)
    torch.testing.assert_close(single.plan.double(), v["plan"], rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(("rows", "columns"), [(0.5, 0.2), (0.1, math.inf), (math.inf, 0.3), (5.0, 5.0)])
def test_relaxed_marginals_agree_with_pot(rows: float, columns: float) -> None:
    cost, mu, nu = problem()
    nu = nu * 1.4
    found = sinkhorn(
        *map(torch.from_numpy, (cost, mu, nu)),
        epsilon=0.05,
        tau_rows=rows,
        tau_columns=columns,
        tolerance=1e-12,
        max_iterations=9000,
    )
    expected = ot.unbalanced.sinkhorn_unbalanced(mu, nu, cost, 0.05, (rows, columns), stopThr=1e-13, numItermax=10000)
    np.testing.assert_allclose(found.plan.numpy(), expected, rtol=1e-7, atol=1e-12)
    assert bool(found.converged)


def test_a_batch_is_its_problems_and_a_warm_start_is_quick() -> None:
    cost = torch.rand(3, 12, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mu = torch.rand(3, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mu /= mu.sum(1, keepdim=True)
    whole = sinkhorn(cost, mu, tolerance=1e-11)
    for i in range(3):
        torch.testing.assert_close(whole.plan[i], sinkhorn(cost[i], mu[i], tolerance=1e-11).plan, rtol=0, atol=1e-10)
    torch.testing.assert_close(whole.plan.sum(-1), mu, rtol=0, atol=1e-10)
    torch.testing.assert_close(whole.plan.sum(-2), torch.full((3, 5), 0.2, dtype=torch.float64))
    again = sinkhorn(cost, mu, tolerance=1e-11, start=(whole.phi, whole.psi))
    assert again.iterations <= 10 < whole.iterations


def test_no_convergence_is_said_per_problem() -> None:
    cost, mu, nu = (torch.from_numpy(a) for a in problem())
    both = torch.stack([cost, 0 * cost])
    found = sinkhorn(both, mu, nu, epsilon=0.01, tolerance=1e-10, max_iterations=3)
    assert found.converged.tolist() == [False, True]
    assert found.iterations == 3
    assert float(found.error[0]) == pytest.approx(float((found.plan[0].sum(1) - mu).abs().sum()), rel=1e-9)


def test_large_costs_do_not_overflow_in_float32() -> None:
    cost = 1e4 * torch.rand(20, 20, generator=torch.Generator().manual_seed(0))
    found = sinkhorn(cost, epsilon=1.0, max_iterations=3000, tolerance=1e-3)
    assert bool(torch.isfinite(found.plan).all())
    assert float(found.plan.sum()) == pytest.approx(1, abs=1e-2)


def test_relaxed_marginals_leave_what_is_far_unmatched() -> None:
    x = torch.tensor([0.0, 1.0, 2.0, 50.0], dtype=torch.float64)
    y = torch.tensor([0.0, 1.0, 2.0, -50.0], dtype=torch.float64)
    found = sinkhorn((x[:, None] - y).abs(), epsilon=0.05, tau_rows=1.0, tau_columns=1.0)
    assert bool(found.converged)
    assert (found.plan.sum(1)[:3] > 0.2).all()
    assert found.plan[3].sum() < 1e-3 > found.plan[:, 3].sum()


def test_rounding_gives_the_marginals_and_moves_little() -> None:
    cost, mu, nu = (torch.from_numpy(a) for a in problem())
    rough = sinkhorn(cost, mu, nu, epsilon=0.02, max_iterations=5)
    plan = round_to_marginals(rough.plan, mu, nu)
    torch.testing.assert_close(plan.sum(1), mu, rtol=0, atol=1e-14)
    torch.testing.assert_close(plan.sum(0), nu, rtol=0, atol=1e-14)
    assert 1e-6 < float((plan - rough.plan).abs().sum()) <= 2 * float(rough.error) + 1e-12


def test_gradients_are_not_recorded() -> None:
    cost = torch.rand(4, 3, requires_grad=True)
    assert not sinkhorn(cost).plan.requires_grad


@pytest.mark.parametrize("taus", [{}, {"tau_rows": 0.5, "tau_columns": 0.2}])
def test_sparse_on_all_pairs_is_the_dense_problem(taus: dict[str, float]) -> None:
    cost, mu, nu = problem()
    dense = sinkhorn(*map(torch.from_numpy, (cost, mu, nu)), epsilon=0.05, tolerance=1e-12, **taus)
    found = sparse_sinkhorn(sp.csr_array(cost), mu, nu, epsilon=0.05, tolerance=1e-12, **taus)
    np.testing.assert_allclose(found.plan.toarray(), dense.plan.numpy(), rtol=1e-8, atol=1e-13)
    assert found.converged


def test_sparse_pairs_left_out_carry_nothing() -> None:
    cost, mu, nu = problem(12, 15)
    mask = np.random.default_rng(1).random(cost.shape) < 0.4
    mask[3] = False  # a source without candidates
    mask[:, 4] = False  # a target without candidates
    row, column = np.nonzero(mask)
    sparse = sp.coo_array((cost[mask], (row, column)), shape=cost.shape).tocsr()
    found = sparse_sinkhorn(sparse, mu, nu, epsilon=0.1, tau_rows=1.0, tau_columns=1.0, tolerance=1e-12)
    keep = np.ix_(np.arange(12) != 3, np.arange(15) != 4)
    large = np.where(mask, cost, 1e3)[keep]
    dense = sinkhorn(
        *map(torch.from_numpy, (large, np.delete(mu, 3), np.delete(nu, 4))),
        epsilon=0.1,
        tau_rows=1.0,
        tau_columns=1.0,
        tolerance=1e-12,
    )
    np.testing.assert_allclose(found.plan.toarray()[keep], dense.plan.numpy(), rtol=1e-8, atol=1e-13)
    assert found.plan.toarray()[~mask].sum() == 0


def test_sparse_says_when_no_plan_exists() -> None:
    # both sources reach only the first of two targets
    cost = sp.csr_array((np.ones(3), ([0, 1, 1], [0, 0, 1])), shape=(3, 2))
    found = sparse_sinkhorn(cost[:2], np.array([0.5, 0.5]), np.array([0.2, 0.8]), epsilon=0.1, max_iterations=50)
    assert not found.converged
    assert found.error > 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mu": torch.ones(4)}, "mu has shape"),
        ({"nu": torch.tensor([1.0, -1.0, 1.0])}, "below 0"),
        ({"mu": torch.ones(5)}, "equal sums"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"tau_rows": -1.0}, "tau_rows"),
    ],
)
def test_bad_input(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sinkhorn(torch.zeros(5, 3), **arguments)


def test_bad_costs() -> None:
    with pytest.raises(InputError, match="not finite"):
        sinkhorn(torch.tensor([[1.0, math.inf]]))
    with pytest.raises(InputError, match="of floats"):
        sinkhorn(torch.ones(2, 2, dtype=torch.int64))
    with pytest.raises(InputError, match="0 pairs"), warnings.catch_warnings():
        sparse_sinkhorn(sp.csr_array((3, 3)), epsilon=1.0)
    with pytest.raises(InputError, match=r"mu has shape \(2,\)"):
        sparse_sinkhorn(sp.csr_array(np.ones((3, 3))), np.ones(2), epsilon=1.0)
