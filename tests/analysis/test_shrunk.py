import numpy as np
import pytest
from scipy.stats import multivariate_normal

from stscale.analysis.domains import cluster
from stscale.analysis.metrics import ari
from stscale.analysis.mixture import fit_mixture
from stscale.analysis.shrunk import fit_shrunk
from stscale.config import Domains
from stscale.errors import InputError


@pytest.fixture(scope="module")
def wide_and_narrow():
    """One wide cloud and two narrow ones, of unequal sizes."""
    rng = np.random.default_rng(3)
    parts = [rng.normal(0, 2.0, (600, 4)), rng.normal(0, 0.6, (300, 4)), rng.normal(0, 0.6, (250, 4))]
    parts[1][:, 0] += 6
    parts[2][:, 1] += 6
    x = np.concatenate(parts)
    truth = np.repeat([0, 1, 2], [600, 300, 250])
    order = rng.permutation(len(x))
    x, truth = x[order], truth[order]
    x.flags.writeable = False
    return x, truth


def test_density_is_that_of_the_gaussians(wide_and_narrow):
    x, _ = wide_and_narrow
    fit = fit_shrunk(x, 3, shrink=1.5, starts=6, seed=0)
    expected = [
        np.log(w) + multivariate_normal(m, f @ f.T).logpdf(x[:50])
        for w, m, f in zip(fit.weights, fit.means, fit.factors, strict=True)
    ]
    constant = 0.5 * x.shape[1] * np.log(2 * np.pi)
    np.testing.assert_allclose(fit.log_density(x[:50]) - constant, np.stack(expected, axis=1), rtol=1e-9)


def test_fitted_parameters_are_a_fixed_point_of_the_stated_equations(wide_and_narrow):
    x, _ = wide_and_narrow
    shrink, k, n = 1.5, 3, len(x)
    fit = fit_shrunk(x, k, shrink=shrink, starts=6, seed=0)
    assert fit.converged
    score = fit.log_density(x)
    resp = np.exp(score - score.max(axis=1, keepdims=True))
    resp /= resp.sum(axis=1, keepdims=True)
    mass = resp.sum(axis=0)
    means = resp.T @ x / mass[:, None]
    scatter = np.stack([(x - m).T @ ((x - m) * r[:, None]) for m, r in zip(means, resp.T, strict=True)])
    common, prior = scatter.sum(axis=0) / n, shrink * n / k
    own = (scatter + prior * common) / (mass + prior)[:, None, None]
    np.testing.assert_allclose(fit.means, means, atol=5e-2)
    np.testing.assert_allclose(fit.factors @ fit.factors.transpose(0, 2, 1), own, rtol=0.05, atol=0.05)


def test_covariances_of_their_own_tell_wide_from_narrow(wide_and_narrow):
    x, truth = wide_and_narrow
    shrunk = ari(truth, fit_shrunk(x, 3, shrink=0.1, starts=12, seed=0).predict(x))
    tied = ari(truth, fit_mixture(x, 3, starts=12, seed=0).predict(x))
    assert shrunk > 0.9
    assert shrunk > tied + 0.15


def test_strong_shrinkage_is_the_tied_mixture(wide_and_narrow):
    x, _ = wide_and_narrow
    shrunk = fit_shrunk(x, 3, shrink=1e6, starts=12, seed=0)
    factors = shrunk.factors
    np.testing.assert_allclose(factors, np.broadcast_to(factors[0], factors.shape), rtol=1e-3, atol=1e-3)
    own = fit_mixture(x, 3, starts=12, seed=0)
    assert ari(own.predict(x), shrunk.predict(x)) > 0.95


def test_the_starts_see_part_of_the_rows_and_the_fit_all(wide_and_narrow, monkeypatch):
    x, truth = wide_and_narrow
    monkeypatch.setattr("stscale.analysis.shrunk.START_ROWS", 200)
    few = fit_shrunk(x, 3, shrink=0.1, starts=12, seed=0)
    monkeypatch.undo()
    # the same optimum: what is polished sees every row
    assert few.objective == pytest.approx(fit_shrunk(x, 3, shrink=0.1, starts=12, seed=0).objective, abs=1e-2)
    assert ari(truth, few.predict(x)) > 0.9


def test_same_seed_same_fit_and_errors(wide_and_narrow):
    x, _ = wide_and_narrow
    a, b = (fit_shrunk(x, 3, shrink=1.5, starts=4, seed=5) for _ in range(2))
    assert np.array_equal(a.factors, b.factors)
    assert np.array_equal(a.means, b.means)
    with pytest.raises(InputError, match="4 rows"):
        fit_shrunk(x[:4], 5, shrink=1.5, starts=2, seed=0)


def test_config_chooses_the_covariance(wide_and_narrow):
    x, truth = wide_and_narrow
    options = {"k": 3, "n_init": 12, "n_components": 0, "shrink": 0.1}
    shrunk, tied = (cluster(x, Domains(covariance=c, **options), seed=0) for c in ("shrunk", "tied"))
    assert ari(truth, shrunk.labels) > ari(truth, tied.labels) + 0.15
    assert np.array_equal(shrunk.predict(x), shrunk.labels)
