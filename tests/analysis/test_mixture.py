import warnings

import numpy as np
import pytest

from stscale.analysis.mixture import em, fit_mixture
from stscale.errors import InputError


def tissue(seed, n=600, d=5, k=4, gap=3.0):
    rng = np.random.default_rng(seed)
    shape = rng.normal(size=(d, d))
    own = rng.choice(k, size=n, p=np.arange(1, k + 1) / (k * (k + 1) / 2))
    return rng.normal(size=(k, d))[own] * gap + rng.normal(size=(n, d)) @ shape.T * 0.4, own


@pytest.mark.parametrize("steps", [1, 7])
def test_em_has_the_likelihood_of_sklearn_from_the_same_start(steps):
    from sklearn.mixture import GaussianMixture

    x, _ = tissue(0, gap=1.0)
    rng = np.random.default_rng(1)
    resp = rng.dirichlet(np.ones(4), size=len(x))
    ridge = 1e-3
    zero = em(np.ascontiguousarray(x.T), resp.T, ridge=ridge, iterations=0, tolerance=0.0)
    ours = em(np.ascontiguousarray(x.T), resp.T, ridge=ridge, iterations=steps, tolerance=-1.0)
    theirs = GaussianMixture(
        4,
        covariance_type="tied",
        reg_covar=ridge,
        tol=0.0,
        max_iter=steps,
        weights_init=zero.weights,
        means_init=zero.means,
        precisions_init=np.linalg.inv(zero.covariance),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it did not converge
        theirs.fit(x)
    assert ours.loglik / len(x) == pytest.approx(theirs.score(x), rel=1e-9)
    np.testing.assert_allclose(ours.means, theirs.means_, rtol=1e-6)
    np.testing.assert_allclose(ours.covariance, theirs.covariances_, rtol=1e-6)
    np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))
    assert ours.bic == pytest.approx(theirs.bic(x), rel=1e-9)


def test_likelihood_never_falls():
    x, _ = tissue(2, gap=1.0)
    resp = np.random.default_rng(3).dirichlet(np.ones(4), size=len(x)).T
    xt = np.ascontiguousarray(x.T)
    values = [em(xt, resp, ridge=0.0, iterations=i, tolerance=-1.0).loglik for i in range(12)]
    assert (np.diff(values) > 0).all()


def test_many_starts_find_what_one_start_of_sklearn_may_miss():
    from sklearn.mixture import GaussianMixture

    x, own = tissue(4, n=900, gap=2.0)
    ours = fit_mixture(x + 1000.0, 4, starts=12, seed=0)
    theirs = GaussianMixture(4, covariance_type="tied", n_init=5, random_state=0).fit(x)
    assert ours.loglik / len(x) >= theirs.score(x) - 1e-3
    pairs = np.unique(np.stack([own, ours.predict(x + 1000.0)]), axis=1, return_counts=True)[1]
    assert np.sort(pairs)[-4:].sum() > 0.97 * len(x)
    assert ours.converged
    again = fit_mixture(x + 1000.0, 4, starts=12, seed=0)
    np.testing.assert_array_equal(ours.means, again.means)


def test_rank_deficient_and_constant_rows_stay_finite():
    x, _ = tissue(5, n=120, d=3)
    wide = np.concatenate([x, x[:, :2], np.zeros((120, 1))], axis=1)
    assert np.isfinite(fit_mixture(wide, 3, starts=4, seed=0).loglik)
    assert np.isfinite(fit_mixture(np.ones((10, 2)), 1, starts=2, seed=0).loglik)
    with pytest.raises(InputError, match="lower k"):
        fit_mixture(x[:3], 4, starts=2, seed=0)
