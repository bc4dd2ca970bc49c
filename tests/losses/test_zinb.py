"""Zero-inflated negative binomial likelihood against vectors, its definition, its limits and far parameters."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import gammaln
from scipy.stats import nbinom, poisson
from torch import Tensor

from stscale.errors import InputError
from stscale.losses import zinb
from stscale.losses.log_gamma import log_factorial, log_gamma_increment


def naive(x: Tensor, logits: Tensor, log_mean: Tensor, log_theta: Tensor) -> Tensor:
    """Each entry by the definition, float64, differentiable."""
    x, logits, log_mean, log_theta = (t.double() for t in (x, logits, log_mean, log_theta))
    theta = log_theta.exp()
    spread = torch.nn.functional.softplus(log_mean - log_theta)
    nb = torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1)
    nb = nb - theta * spread + x * (log_mean - log_theta - spread)
    log_pi, log_rest = torch.nn.functional.logsigmoid(logits), torch.nn.functional.logsigmoid(-logits)
    return -torch.where(x > 0, log_rest + nb, torch.logaddexp(log_pi, log_rest + nb))


def example(b: int, g: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Counts that are zero nine times in ten, and a decoder's output."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.poisson(torch.full((b, g), 0.1, dtype=torch.float64), generator=rng).long()
    x[0, 0] = 1234
    logits, log_mean, log_theta = (torch.randn(b, g, generator=rng, dtype=torch.float64) for _ in range(3))
    return x, logits, log_mean, log_theta


def test_vectors(vectors: Callable[[str], dict[str, Any]]) -> None:
    v = {k: torch.from_numpy(a) for k, a in vectors("zinb").items()}
    inputs = v["pi"].logit(), v["mean"].log(), v["theta"].log()
    assert zinb(v["x"], *inputs).item() == pytest.approx(v["value"].item(), rel=1e-10)
    single = zinb(v["x"], *(t.float() for t in inputs))
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(v["value"].item(), rel=1e-5)
    none_dropped = zinb(v["x"], torch.full_like(v["pi"], -800.0), *inputs[1:])
    assert none_dropped.item() == pytest.approx(v["nb_value"].item(), rel=1e-10)


@pytest.mark.parametrize("per_gene", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_the_definition_and_its_gradients(per_gene: bool, masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(import_module("stscale.losses.zinb").ENTRIES, "cpu", 40)  # several blocks
    x, *inputs = example(11, 9)
    if per_gene:
        inputs[2] = inputs[2][0].clone()
    mask = torch.rand(11, 9, generator=torch.Generator().manual_seed(1)) < 0.7 if masked else None
    for t in inputs:
        t.requires_grad_()
    value = zinb(x, *inputs, mask)
    (3 * value).backward()
    entries = naive(x, *inputs)
    oracle = entries.mean() if mask is None else entries[mask].mean()
    assert value.item() == pytest.approx(oracle.item(), rel=1e-12)
    for t, expected in zip(inputs, torch.autograd.grad(3 * oracle, inputs), strict=True):
        torch.testing.assert_close(t.grad, expected, rtol=1e-10, atol=1e-13)


def test_no_measured_entry_is_zero() -> None:
    x, *inputs = example(3, 4)
    assert zinb(x, *inputs, torch.zeros(3, 4, dtype=torch.bool)).item() == 0.0


def test_without_dropout_it_is_the_negative_binomial() -> None:
    x, logits, log_mean, log_theta = example(20, 7)
    theta, mean = log_theta.exp().numpy(), log_mean.exp().numpy()
    expected = -nbinom.logpmf(x.numpy(), theta, theta / (theta + mean)).mean()
    assert zinb(x, torch.full_like(logits, -60.0), log_mean, log_theta).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("dtype", "rel"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_with_large_theta_it_is_poisson(dtype: torch.dtype, rel: float) -> None:
    x, logits, log_mean, _ = example(20, 7)
    log_mean[0, 0] = 7.0
    given = torch.full_like(logits, -60.0), log_mean, torch.full_like(logits, 32.0)
    inputs = [t.to(dtype, copy=True) for t in given]
    for t in inputs:
        t.requires_grad_()
    value = zinb(x, *inputs)
    value.backward()
    expected = -poisson.logpmf(x.numpy(), log_mean.exp().numpy()).mean()
    assert value.item() == pytest.approx(expected, rel=rel)
    slope = (log_mean.exp() - x).to(dtype) / x.numel()  # Poisson's own
    torch.testing.assert_close(inputs[1].grad, slope, rtol=rel, atol=1e-9)


@pytest.mark.parametrize("theta", [1e-4, 1e-2, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("logit", [-50.0, 0.0, 50.0])
def test_far_parameters_in_float32(theta: float, logit: float) -> None:
    x = torch.tensor([[0, 1, 2, 30, 1000, 100_000]] * 6)
    mean = torch.tensor([1e-4, 0.1, 1.0, 40.0, 1000.0, 1e5])[:, None].expand(6, 6).contiguous()
    inputs = [torch.full((6, 6), logit), mean.log(), torch.full((6, 6), theta).log()]
    exact = [t.double().requires_grad_() for t in inputs]
    for t in inputs:
        t.requires_grad_()
    for i in range(6):  # one count at a time: a large term must not hide the others
        column = slice(i, i + 1)
        value = zinb(x[:, column], *(t[:, column] for t in inputs))
        oracle = naive(x[:, column], *(t[:, column] for t in exact)).mean()
        assert value.item() == pytest.approx(oracle.item(), rel=1e-5, abs=1e-5)
        found, wanted = torch.autograd.grad(value, inputs), torch.autograd.grad(oracle, exact)
        for f, w in zip(found, wanted, strict=True):
            assert torch.isfinite(f).all()
            torch.testing.assert_close(f.double(), w, rtol=1e-4, atol=1e-6 * max(1.0, float(mean.max()) * 1e-1))


@pytest.mark.parametrize("theta", [1e-8, 1e-4, 0.5, 7.9, 1e3, 1e6])
def test_log_gamma_increment(theta: float) -> None:
    counts = np.array([1, 2, 3, 10, 500])
    value, slope = log_gamma_increment(torch.tensor(counts, dtype=torch.float64), torch.full((5,), theta).double())
    for i, x in enumerate(counts):
        k = np.arange(x) / np.float32(theta).astype(float)
        np.testing.assert_allclose(value[i], np.log1p(k).sum(), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(slope[i], -(k / (1 + k)).sum(), rtol=1e-12, atol=1e-9)


def test_log_factorial() -> None:
    x = torch.tensor([0, 1, 2, 7, 100, 100_000], dtype=torch.float64)
    np.testing.assert_allclose(log_factorial(x), gammaln(x.numpy() + 1), rtol=1e-13, atol=1e-14)


def test_half_precision_is_computed_in_float32() -> None:
    x, *inputs = example(20, 30)
    half = [t.bfloat16().requires_grad_() for t in inputs]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = zinb(x, *half)
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(zinb(x, *(t.detach().float() for t in half)).item(), rel=1e-7)
    assert all(t.grad.dtype == torch.bfloat16 and t.grad.abs().sum() > 0 for t in half)


def test_only_what_is_needed_gets_a_gradient() -> None:
    x, logits, log_mean, log_theta = example(5, 4)
    log_mean.requires_grad_()
    zinb(x, logits, log_mean, log_theta).backward()
    assert log_mean.grad is not None
    assert logits.grad is None


@pytest.mark.parametrize("wrong", ["x", "dropout_logits", "log_theta", "mask"])
def test_shapes_that_do_not_fit(wrong: str) -> None:
    x, logits, log_mean, log_theta = example(5, 4)
    given = {"x": x, "dropout_logits": logits, "log_theta": log_theta, "mask": x > 0}
    given[wrong] = given[wrong][:, :3]
    with pytest.raises(InputError, match=rf"{wrong} has shape \(5, 3\)"):
        zinb(log_mean=log_mean, **given)
