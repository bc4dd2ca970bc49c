"""Swapped prediction: balanced targets, the loss by its definition, the moving averages."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stscale.errors import InputError
from stscale.losses import next_graph, next_marginal, swapped_prediction, swapped_targets


def scores(b: int = 40, p: int = 5, seed: int = 0) -> Tensor:
    return torch.rand(2, b, p, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def test_vectors(vectors: Callable[[str], dict[str, Any]]) -> None:
    v = {k: torch.from_numpy(a) for k, a in vectors("sinkhorn").items()}
    uniform = torch.allclose(v["mu"], torch.full_like(v["mu"], 1 / len(v["mu"])))
    assert uniform  # else the plan is not what a batch asks for
    found = swapped_targets(v["score"], v["nu"], epsilon=float(v["eps"]), max_iterations=10_000, tolerance=1e-12)
    assert found.converged
    torch.testing.assert_close(found.q / len(v["mu"]), v["plan"], rtol=1e-8, atol=1e-12)


def test_targets_are_balanced_and_both_views_solved_at_once() -> None:
    r = scores()
    nu = torch.tensor([3.0, 1.0, 1.0, 2.0, 1.0], dtype=torch.float64)
    found = swapped_targets(r, nu, epsilon=0.2, max_iterations=500, tolerance=1e-9)
    assert found.converged.tolist() == [True, True]
    torch.testing.assert_close(found.q.sum(-1), torch.ones(2, 40, dtype=torch.float64))
    torch.testing.assert_close(found.q.mean(-2), (nu / 8).expand(2, 5), rtol=1e-7, atol=0)
    alone = swapped_targets(r[1], nu, epsilon=0.2, max_iterations=500, tolerance=1e-9)
    torch.testing.assert_close(found.q[1], alone.q, rtol=1e-6, atol=1e-9)


def test_an_unconverged_plan_is_said() -> None:
    found = swapped_targets(scores(), epsilon=0.01, max_iterations=2, tolerance=1e-6)
    assert not found.converged.any()
    assert (found.error > 1e-6).all()
    torch.testing.assert_close(found.q.sum(-1), torch.ones(2, 40, dtype=torch.float64))


def test_the_definition() -> None:
    r, q = scores(), torch.softmax(scores(seed=1), dim=-1)
    value = swapped_prediction(*r, *q, 0.1).item()
    logs = [x / 0.1 - np.log(np.exp(x / 0.1).sum(axis=1, keepdims=True)) for x in r.numpy()]
    expected = -0.5 * sum((q[0, i].numpy() @ logs[1][i] + q[1, i].numpy() @ logs[0][i]) for i in range(40)) / 40
    assert value == pytest.approx(expected, rel=1e-12)


def test_no_gradient_reaches_the_targets() -> None:
    r = scores().requires_grad_()
    found = swapped_targets(r)
    assert not found.q.requires_grad
    q = found.q.clone().requires_grad_()
    swapped_prediction(*r, *q, 0.1).backward()
    assert q.grad is None
    # of cross-entropy: view 1 moves towards the targets of view 2
    expected = (torch.softmax(r[0] / 0.1, dim=1) - q[1]).detach() / (0.1 * 2 * 40)
    torch.testing.assert_close(r.grad[0], expected)


def test_half_precision_is_computed_in_float32() -> None:
    r = scores().bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = swapped_targets(r)
        value = swapped_prediction(*r, *found.q, 0.1)
    assert found.q.dtype == value.dtype == torch.float32
    exact = swapped_targets(r.float())
    torch.testing.assert_close(found.q, exact.q, rtol=0, atol=0)
    assert value.item() == swapped_prediction(*r.float(), *exact.q, 0.1).item()


def test_the_prototype_graph_moves_towards_shared_assignments() -> None:
    p = torch.softmax(4 * scores()[0], dim=1)
    graph = next_graph(torch.eye(5, dtype=torch.float64), p.T @ p, 0.9)
    gram = p.numpy().T @ p.numpy()
    expected = 0.9 * np.eye(5) + 0.1 * gram / gram.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(graph, expected, rtol=1e-12)
    np.testing.assert_allclose(graph.sum(1), 1.0)
    # batches and ranks add
    halves = p[:11].T @ p[:11] + p[11:].T @ p[11:]
    np.testing.assert_allclose(next_graph(torch.eye(5, dtype=torch.float64), halves, 0.9), expected, rtol=1e-12)


def test_the_marginal_moves_towards_the_mean_assignment() -> None:
    p = torch.softmax(4 * scores()[0], dim=1)
    nu = torch.full((5,), 0.2, dtype=torch.float64)
    moved = next_marginal(nu, p.sum(0), 0.99)
    np.testing.assert_allclose(moved, 0.99 * 0.2 + 0.01 * p.numpy().mean(0), rtol=1e-12)
    assert moved.sum().item() == pytest.approx(1.0, rel=1e-12)


def test_an_unused_prototype_leaves_no_nan() -> None:
    gram = torch.diag(torch.tensor([4.0, 0.0]))
    graph = next_graph(torch.eye(2), gram, 0.5)
    torch.testing.assert_close(graph, torch.tensor([[1.0, 0.0], [0.0, 0.5]]))


def test_what_does_not_fit() -> None:
    r = scores()
    with pytest.raises(InputError, match="tau = 0"):
        swapped_prediction(*r, *r, 0)
    with pytest.raises(InputError, match="nu has shape"):
        swapped_targets(r, torch.ones(4))
    with pytest.raises(InputError, match="not finite"):
        swapped_targets(r * torch.nan)
