"""The linear-cost telescope against its naive definition, its gradients, and its form over all spots."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stscale.losses import Grams, telescope_block, telescope_global, telescope_gram
from stscale.losses.telescope import gram_value, grams

Vectors = Callable[[str], dict[str, Any]]
forms = pytest.mark.parametrize("form", [telescope_gram, telescope_block, lambda a, b: telescope_block(a, b, rows=7)])


def views(n: int, d: int, seed: int = 0, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(n, d, generator=g, dtype=torch.float64)
    return z, z + spread * torch.randn(n, d, generator=g, dtype=torch.float64)


def naive(z: Tensor, z_prime: Tensor) -> float:
    """The definition, by loops."""
    a, b = (v.numpy() / np.linalg.norm(v.numpy(), axis=1, keepdims=True) for v in (z, z_prime))
    n = len(a)
    return sum((a[i] @ b[j] - a[j] @ b[i]) ** 2 for i in range(n) for j in range(n)) / n**2


@forms
def test_vectors(form: Callable[[Tensor, Tensor], Tensor], vectors: Vectors) -> None:
    v = vectors("telescope")
    z = torch.from_numpy(v["z"]).requires_grad_()
    value = form(z, torch.from_numpy(v["z_prime"]))
    value.backward()
    assert value.item() == pytest.approx(float(v["value"]), rel=1e-10)
    np.testing.assert_allclose(z.grad.numpy(), v["grad_z"], rtol=0, atol=1e-11)  # largest: 2e-3
    close = form(torch.from_numpy(v["z"]), torch.from_numpy(v["z_close"]))
    assert close.item() == pytest.approx(float(v["value_close"]), rel=1e-10)


@forms
def test_the_definition_by_loops(form: Callable[[Tensor, Tensor], Tensor]) -> None:
    z, z_prime = views(23, 4)
    assert form(z, z_prime).item() == pytest.approx(naive(z, z_prime), rel=1e-12)


@forms
def test_gradients_of_both_views(form: Callable[[Tensor, Tensor], Tensor]) -> None:
    z, z_prime = views(9, 3)
    assert torch.autograd.gradcheck(form, (z.requires_grad_(), z_prime.requires_grad_()))


def test_float32_agrees_with_the_blocks_for_close_views() -> None:
    both = [v.float() for v in views(300, 16, spread=1e-3)]
    found = {}
    for name, form, dtype in [
        ("gram", telescope_gram, torch.float32),
        ("block", telescope_block, torch.float32),
        ("exact", telescope_block, torch.float64),
    ]:
        z, z_prime = (v.to(dtype, copy=True).requires_grad_() for v in both)
        value = form(z, z_prime)
        value.backward()
        found[name] = value.item(), z.grad.double(), z_prime.grad.double()
    for other in ("block", "exact"):
        assert found["gram"][0] == pytest.approx(found[other][0], rel=1e-5)
    # the blocks subtract normalised rows, whose rounding is 1e-4 of the difference: float64 is the oracle here
    for i in (1, 2):
        assert (found["gram"][i] - found["exact"][i]).norm() <= 1e-5 * found["exact"][i].norm()
        assert (found["block"][i] - found["exact"][i]).norm() <= 3e-4 * found["exact"][i].norm()


def test_rows_of_very_different_length_do_not_cancel() -> None:
    z, z_prime = (v.float() for v in views(40, 6))
    z[3] = 0.0
    z[5] *= 1e-4
    z_prime[7] *= 1e5
    z_prime[9] = 0.0
    z[9] = 0.0
    fast, exact = (
        [v.to(dtype, copy=True).requires_grad_() for v in (z, z_prime)] for dtype in (torch.float32, torch.float64)
    )
    value, truth = telescope_gram(*fast), telescope_block(*exact)
    assert value.item() == pytest.approx(truth.item(), rel=1e-5)
    value.backward()
    assert all(torch.isfinite(v.grad).all() for v in fast)


def test_equal_views_cost_nothing() -> None:
    z, z_prime = views(20, 4)
    assert telescope_gram(z, z * torch.rand(20, 1, dtype=torch.float64)).item() == pytest.approx(0, abs=1e-15)
    assert telescope_gram(z, z_prime).item() > 1e-3


def test_grams_of_row_blocks_combine_by_their_weighted_mean() -> None:
    z, z_prime = views(50, 5)
    whole = grams(z, z_prime)
    cuts = [(0, 7), (7, 30), (30, 50)]
    parts = [(hi - lo, grams(z[lo:hi], z_prime[lo:hi])) for lo, hi in cuts]
    joined = {k: sum(n / 50 * getattr(p, k) for n, p in parts) for k in ("g", "d", "c")}
    for k, v in joined.items():
        torch.testing.assert_close(v, getattr(whole, k), rtol=1e-12, atol=1e-14)
    assert gram_value(Grams(**joined)).item() == pytest.approx(naive(z, z_prime), rel=1e-10)


def test_global_gradient_averages_to_that_of_all_spots() -> None:
    n, d = 60, 5
    z, z_prime = views(n, d)
    z.requires_grad_()
    z_prime.requires_grad_()
    full = torch.autograd.grad(telescope_gram(z, z_prime), (z, z_prime))
    with torch.no_grad():
        running = grams(z, z_prime)
    total = [torch.zeros(n, d, dtype=torch.float64) for _ in range(2)]
    for at in torch.split(torch.randperm(n, generator=torch.Generator().manual_seed(1)), [13, 20, 1, 26]):
        a, b = (v.detach()[at].requires_grad_() for v in (z, z_prime))
        value = telescope_global(grams(a, b), running)
        for whole, g in zip(total, torch.autograd.grad(value, (a, b)), strict=True):
            whole[at] += len(at) / n * g
    for whole, g in zip(total, full, strict=True):
        torch.testing.assert_close(whole, g, rtol=1e-10, atol=1e-14)
    # the batch's own telescope does not have this property, so the test can tell
    (own,) = torch.autograd.grad(telescope_gram(z[:30], z_prime[:30]), z)
    assert (own / 2 - full[0])[:30].norm() > 0.1 * full[0][:30].norm()


def test_global_value_over_one_full_batch_is_the_objective() -> None:
    z, z_prime = views(40, 6)
    running = grams(z, z_prime)
    own = grams(z.requires_grad_(), z_prime)
    value = telescope_global(own, running)
    assert value.item() == pytest.approx(telescope_gram(z, z_prime).item(), rel=1e-12)
    for k in ("g", "d", "c"):
        torch.testing.assert_close(getattr(own, k), getattr(running, k))
