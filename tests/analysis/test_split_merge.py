from dataclasses import replace

import numpy as np
import pytest

from stscale.analysis.metrics import ari
from stscale.analysis.mixture import RIDGE
from stscale.analysis.shrunk import ShrunkMixture, _Fit, fit_shrunk
from stscale.analysis.split_merge import improved, split

K = 5


@pytest.fixture(scope="module")
def clouds():
    """Five clouds on a line of the plane, far from each other."""
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(K), 200)
    x = rng.normal(0, 0.4, (len(truth), 3))
    x[:, 0] += 6.0 * truth
    return x - x.mean(axis=0), truth


def climber(x):
    return _Fit(x, K, prior=1.5 * len(x) / K, ridge=RIDGE * float(np.mean(x**2)))


def stuck(x, truth):
    """A local optimum: the first cloud has two components, the last two clouds share one."""
    centres = np.array([x[truth == c].mean(axis=0) for c in range(K)])
    means = np.stack([centres[0] - 0.3, centres[0] + 0.3, centres[1], centres[2], (centres[3] + centres[4]) / 2])
    start = ShrunkMixture(
        weights=np.full(K, 1 / K),
        means=means,
        factors=np.repeat(np.eye(3)[None], K, axis=0),
        objective=-np.inf,
        converged=False,
    )
    return climber(x).climb(start, 300, 1e-9)


def test_leaves_an_optimum_where_em_stays(clouds):
    x, truth = clouds
    begin = stuck(x, truth)
    assert ari(truth, begin.predict(x)) < 0.9  # EM alone does not get away from there
    ended = improved(begin, climber(x), climber(x), rounds=8, polish=200)
    assert ended.objective > begin.objective + 0.1
    assert ari(truth, ended.predict(x)) == 1.0


def test_the_best_optimum_stays_and_so_does_a_mixture_without_rounds(clouds):
    x, truth = clouds
    best = fit_shrunk(x, K, shrink=1.5, starts=12, seed=0)
    again = improved(best, climber(x), climber(x), rounds=8, polish=200)
    assert again.objective >= best.objective
    assert ari(truth, again.predict(x)) == 1.0
    begin = stuck(x, truth)
    assert improved(begin, climber(x), climber(x), rounds=0, polish=200) is begin
    two = replace(begin, weights=begin.weights[:2], means=begin.means[:2], factors=begin.factors[:2])
    assert improved(two, climber(x), climber(x), rounds=8, polish=200) is two


def test_one_start_and_moves_find_what_it_misses_alone(clouds):
    x, truth = clouds
    alone, moved = [
        [ari(truth, fit_shrunk(x, K, shrink=1.5, starts=1, seed=s, moves=m).predict(x)) for s in range(6)]
        for m in (0, 8)
    ]
    assert min(alone) < 1.0
    assert min(moved) == 1.0


def test_a_split_keeps_number_and_mass(clouds):
    x, truth = clouds
    begin = stuck(x, truth)
    found = split(begin, 0, 4)
    assert found.means.shape == begin.means.shape
    assert found.weights.sum() == pytest.approx(1.0)
    # both halves lie on the wide direction of the component that was halved, about its mean
    np.testing.assert_allclose((found.means[0] + found.means[4]) / 2, begin.means[4])
    step = found.means[0] - found.means[4]
    assert abs(step[0]) > 10 * np.abs(step[1:]).max()
