"""Prototypical contrast against its naive value; sizes of the granularities."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from stscale.losses import granularity_sizes, masked_mse, prototype_contrast


def test_vectors(vectors: Callable[[str], dict[str, Any]]) -> None:
    v = vectors("prototypes")
    z = torch.from_numpy(v["z"])
    centroids = [torch.from_numpy(v[f"centroids_{t}"]) for t in range(3)]
    assigned = [torch.from_numpy(v[f"assign_{t}"]).long() for t in range(3)]
    value = prototype_contrast(z, centroids, assigned, float(v["tau"]))
    assert value.item() == pytest.approx(float(v["value"]), rel=1e-10)
    single = prototype_contrast(z.float(), [c.float() for c in centroids], assigned, float(v["tau"]))
    assert single.item() == pytest.approx(float(v["value"]), rel=1e-5)


def test_the_definition_by_loops() -> None:
    rng = np.random.default_rng(0)
    z, centroids = rng.normal(size=(11, 3)), [rng.normal(size=(k, 3)) for k in (2, 4)]
    assigned = [rng.integers(k, size=11) for k in (2, 4)]
    expected = []
    for c, a in zip(centroids, assigned, strict=True):
        for i in range(11):
            cos = [z[i] @ m / np.linalg.norm(z[i]) / np.linalg.norm(m) for m in c]
            expected.append(-np.log(np.exp(cos[a[i]] / 0.3) / np.exp(np.array(cos) / 0.3).sum()))
    value = prototype_contrast(
        torch.from_numpy(z), [torch.from_numpy(c) for c in centroids], [torch.from_numpy(a) for a in assigned], 0.3
    )
    assert value.item() == pytest.approx(np.mean(expected), rel=1e-12)


def test_gradient() -> None:
    g = torch.Generator().manual_seed(0)
    z, c = (torch.randn(n, 3, generator=g, dtype=torch.float64) for n in (6, 2))
    a = torch.tensor([0, 1, 1, 0, 1, 0])
    assert torch.autograd.gradcheck(lambda x: prototype_contrast(x, [c], [a], 0.5), (z.requires_grad_(),))


def test_sizes_grow_by_one_at_least() -> None:
    assert granularity_sizes(7, (1, 1.5, 2)) == [7, 11, 14]
    assert granularity_sizes(1, (1, 1.5, 2)) == [1, 2, 3]
    assert granularity_sizes(4, (2, 1, 1.1)) == [8, 9, 10]
    assert granularity_sizes(10, (1.0,)) == [10]


def test_masked_error_counts_measured_entries_only() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    x_hat = torch.tensor([[2.0, 9.0], [1.0, 4.5]])
    mask = torch.tensor([[True, False], [True, True]])
    assert masked_mse(x, x_hat).item() == pytest.approx((1 + 49 + 4 + 0.25) / 4)
    assert masked_mse(x, x_hat, mask).item() == pytest.approx((1 + 4 + 0.25) / 3)
    assert masked_mse(x, x_hat, torch.zeros(2, 2, dtype=torch.bool)).item() == 0.0
