"""Genes regressed on latents: against a direct solution, where a slice lacks a gene, and of the right size."""

import numpy as np
import pytest
from scipy import sparse

from stscale.analysis.regression import Moments

S, N, D, K = 3, 200, 5, 4


@pytest.fixture(scope="module")
def made():
    """Return latents (S, N, D) of unequal columns, values (S, N, K) linear in them, masked and whole, and the mask."""
    rng = np.random.default_rng(0)
    z = (rng.standard_normal((S, N, D)) * [5, 1, 0.2, 1, 3] + rng.standard_normal((S, 1, D))).astype(np.float32)
    x = 9 + z @ (0.3 * rng.standard_normal((D, K))) + rng.standard_normal((S, 1, K))
    mask = np.ones((S, K), bool)
    mask[1, 2] = mask[0, 3] = mask[2, 3] = False
    return z, np.where(mask[:, None], x, 0.0), x, mask


def collected(z, x, *, block: int = 64) -> Moments:
    moments = Moments(S, D, K)
    for i in range(S):
        for lo in range(0, N, block):
            moments.add(i, z[i, lo : lo + block], sparse.csr_matrix(x[i, lo : lo + block]))
    return moments


def test_it_is_ridge_regression_with_a_slope(made) -> None:
    z, x, _, mask = made
    found = collected(z, x).fit(mask, penalty=0.7)
    for gene in range(K):
        have = np.flatnonzero(mask[:, gene])
        f = np.concatenate([z[i] - z[i].mean(axis=0, dtype=np.float64) for i in have])
        y = np.concatenate([x[i, :, gene] - x[i, :, gene].mean() for i in have])
        size = f.std(axis=0)
        w = np.linalg.solve((f / size).T @ (f / size) + 0.7 * len(f) * np.eye(D), (f / size).T @ y) / size
        w *= (f @ w) @ y / ((f @ w) @ (f @ w))
        assert np.allclose(found.weights[:, gene], w, rtol=1e-6)


def test_a_gene_that_a_slice_lacks_is_predicted_there(made) -> None:
    z, x, true, mask = made
    found = collected(z, x).fit(mask, penalty=1e-6)
    for i, gene in ((1, 2), (0, 3), (2, 3)):
        own = found(z[i], i)[:, gene]
        assert np.corrcoef(own, true[i, :, gene])[0, 1] > 0.999
        have = mask[:, gene]
        assert own.mean() == pytest.approx(x[have, :, gene].mean(), rel=1e-3)
    # where it was measured, at the height it has there
    assert np.allclose(found(z[1], 1)[:, 3], true[1, :, 3], atol=1e-3)
    assert found(z[0], 0).dtype == np.float32


def test_values_are_not_negative_and_constants_say_nothing(made) -> None:
    z, x, _, mask = made
    low = x.copy()
    low[..., 0] -= 100
    low[..., 1] = 2.0
    still = z.copy()
    still[..., 2] = 1.0
    found = collected(still, low).fit(mask)
    assert np.isfinite(found.weights).all()
    assert (found.weights[2] == 0).all()
    values = found(still[0], 0)
    assert values.min() == 0
    assert np.allclose(values[:, 1], 2.0, atol=1e-6)
    assert np.allclose(collected(still, low, block=7).fit(mask).weights, found.weights, atol=1e-9)
