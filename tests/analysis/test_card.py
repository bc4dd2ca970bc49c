"""The label-free card: what it measures on tissue that is known, and the rule over two of them."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from stscale.analysis import windows
from stscale.analysis.card import FIT_SPOTS, SPLITS, Measures, Sample, measure, mixing, one_gaussian
from stscale.analysis.estimate import estimate_k, resampled
from stscale.analysis.metrics_spatial import chaos, pas
from stscale.analysis.mixture import fit_mixture
from stscale.analysis.told import Surroundings
from stscale.analysis.verdict import FAR_SMOOTHER, LEAST, LESS, MORE, ROUGHER, judge
from stscale.config import Graph
from stscale.errors import InputError
from stscale.graphs import spatial_graph

SIDE = 40


def tissue(apart: float, *, slices: int = 2, shift: float = 0.0, seed: int = 0):
    """Slices of SIDE × SIDE spots in three stripes, row by row: latents whose stripes lie `apart`, coordinates."""
    rng = np.random.default_rng(seed)
    y, x = np.divmod(np.arange(SIDE * SIDE), SIDE)
    stripe = np.minimum(3 * y // SIDE, 2)
    xy = np.tile(np.stack([x, y], axis=1).astype(float), (slices, 1))
    group = np.repeat(np.arange(slices), SIDE * SIDE)
    z = rng.normal(size=(len(xy), 6))
    z[:, 0] += apart * (np.tile(stripe, slices) - 1)
    z[:, 1] += apart * (np.tile(stripe, slices) == 1)
    return z + shift * group[:, None], xy, group


def around(z, xy, group) -> Surroundings:
    """The spots themselves are what is told of."""
    graph = spatial_graph(xy, np.searchsorted(group, np.arange(int(group[-1]) + 2)), Graph())
    return Surroundings(lambda lo, hi: z[lo:hi], graph.indptr, graph.indices)


def measured(apart: float, **changes) -> Measures:
    z, xy, group = tissue(apart, **changes)
    return measure(z, xy, group, Sample.draw(len(z), seed=0), around(z, xy, group), k=3, n_components=5, seed=0)


@pytest.fixture(scope="module")
def clear() -> Measures:
    return measured(8.0)


def test_clear_domains_are_steady_and_tell_of_spots_left_out(clear):
    assert clear.seeds == pytest.approx(1.0)
    assert clear.halves == pytest.approx(1.0)
    assert clear.gain > 0.5
    assert clear.told > 0.6
    assert clear.pas < 0.01
    assert clear.ilisi > 0.8
    assert clear.bic == pytest.approx(-2 * clear.log_likelihood, abs=0.2)


def test_noise_is_not(clear):
    noise = measured(0.0)
    assert noise.halves < 0.3 < clear.halves
    assert noise.gain < 0.02
    assert noise.told < LEAST
    assert noise.pas > 0.2


def test_what_neighbours_tell_is_measured_on_the_windows_own_rows(clear, monkeypatch):
    monkeypatch.setattr(windows, "WINDOW", 350)  # four of them are less than half of the spots
    assert measured(8.0).told == pytest.approx(clear.told, abs=0.03)


def test_slices_that_lie_apart_do_not_mix(clear):
    assert measured(8.0, shift=6.0).ilisi < 0.1 < clear.ilisi
    assert measured(8.0, slices=1).ilisi is None


def test_gain_does_not_see_the_scale_of_the_embedding(clear):
    z, xy, group = tissue(8.0)
    turned = z @ np.linalg.qr(np.random.default_rng(3).normal(size=(6, 6)))[0]
    beside, given = around(z, xy, group), {"k": 3, "n_components": 0, "seed": 0}
    found = measure(100 * turned + 7, xy, group, Sample.draw(len(z), seed=0), beside, **given)
    plain = measure(z, xy, group, Sample.draw(len(z), seed=0), beside, **given)
    assert found.told == pytest.approx(plain.told, abs=1e-9)
    assert found.gain == pytest.approx(plain.gain, abs=1e-6)
    assert found.log_likelihood == pytest.approx(plain.log_likelihood - 6 * np.log(100), abs=1e-3)


@pytest.mark.parametrize(("spots", "k"), [(3, 2), (30, 2), (200, 1), (50, 3)])
def test_one_domain_or_hardly_a_spot_is_not_judged(spots, k):
    z, xy, group = (part[:spots] for part in tissue(1.0))
    given = Sample.draw(spots, seed=0), around(z, xy, group)
    found = measure(z, xy, group, *given, k=k, n_components=0, seed=0)
    assert set(asdict(found).values()) == {None}
    assert judge(found, found).verdict == "unknown"


def test_parts_of_other_lengths_are_refused():
    z, xy, group = tissue(1.0)
    with pytest.raises(InputError, match="3200 latents, 3199 coordinates"):
        measure(z, xy[1:], group, Sample.draw(len(z), seed=0), around(z, xy, group), k=3, n_components=0, seed=0)


def test_large_tissue_is_sampled_in_whole_tiles():
    sample, again = Sample.draw(200_000, seed=5), Sample.draw(200_000, seed=5)
    assert FIT_SPOTS - 64 < len(sample.fit) <= FIT_SPOTS
    assert set(np.bincount(sample.fit // 64)) == {0, 64}
    assert (len(sample.coherence), len(sample.mixing)) == (50_000, 5_000)
    assert sample.halves.shape == (SPLITS, len(sample.fit))
    np.testing.assert_array_equal(sample.fit, again.fit)
    np.testing.assert_array_equal(sample.halves, again.halves)
    for half in sample.halves:
        assert abs(half.mean() - 0.5) < 0.02
        tiles = sample.fit // 64
        assert not set(tiles[half]) & set(tiles[~half])
    small = Sample.draw(100, seed=0)
    np.testing.assert_array_equal(small.fit, np.arange(100))
    assert small.halves.any(axis=1).all()
    assert not small.halves.all(axis=1).any()


def test_likelihood_of_rows_is_that_of_the_density():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(80, 3)) + 1000, rng.normal(size=(60, 3)) + 1004])
    fit = fit_mixture(x, 2, starts=3, seed=0)
    parts = [w * multivariate_normal(m, fit.covariance).pdf(x) for w, m in zip(fit.weights, fit.means, strict=True)]
    np.testing.assert_allclose(fit.log_likelihood(x), np.log(sum(parts)), atol=1e-7)
    assert fit.log_likelihood(x).sum() == pytest.approx(fit.loglik, abs=1e-5)
    alone = one_gaussian(x)
    expected = multivariate_normal(x.mean(axis=0), np.cov(x.T, bias=True)).logpdf(x)
    np.testing.assert_allclose(alone.log_likelihood(x), expected, atol=1e-4)


def test_coherence_of_some_spots_is_their_mean():
    _, xy, group = tissue(0.0)
    domains = np.random.default_rng(1).integers(0, 3, len(xy))
    rows = np.sort(np.random.default_rng(2).choice(len(xy), 700, replace=False))
    assert chaos(xy, domains, group, rows=np.arange(len(xy))) == chaos(xy, domains, group)
    assert pas(xy, domains, group, rows=np.arange(len(xy))) == pas(xy, domains, group)
    for metric in (chaos, pas):
        each = [metric(xy, domains, group, rows=rows[i : i + 1]) for i in range(len(rows))]
        assert metric(xy, domains, group, rows=rows) == pytest.approx(np.mean(each))
    with pytest.raises(InputError, match="none of the spots asked for"):
        pas(xy, domains, group, rows=np.empty(0, np.int64))


FLOOR = Measures(seeds=0.6, halves=0.5, told=0.2, log_likelihood=-1, bic=2, gain=1.0, chaos=0.1, pas=0.1, ilisi=0.2)
ENOUGH, AS_MUCH = 0.2 * (1 + MORE), 0.2 * (1 - LESS)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "not better"),
        ({"told": ENOUGH + 1e-6}, "better"),
        ({"told": ENOUGH - 1e-6}, "not better"),
        ({"told": 0.4, "pas": 0.1 * (1 + ROUGHER) + 1e-6}, "not better"),
        ({"told": AS_MUCH + 1e-6, "pas": 0.1 * FAR_SMOOTHER}, "better"),
        ({"told": AS_MUCH - 1e-6, "pas": 0.0}, "not better"),
        ({"told": AS_MUCH + 1e-6, "pas": 0.1 * FAR_SMOOTHER + 1e-6}, "not better"),
        # steadier, likelier and better mixed, and nothing that says it is truer
        ({"seeds": 1.0, "halves": 1.0, "gain": 3.0, "ilisi": 1.0}, "not better"),
        ({"told": None}, "unknown"),
        ({"pas": None}, "unknown"),
    ],
)
def test_the_rule(changes, verdict):
    found = judge(replace(FLOOR, **changes), FLOOR)
    assert found.verdict == verdict
    assert ("--method smooth" in found.sentence) == (verdict == "not better")
    assert ("tell" in found.sentence) == (verdict != "unknown")


@pytest.mark.parametrize("floor", [-0.001, 0.0, 0.0005])
def test_what_chance_tells_does_not_count(floor):
    nothing = replace(FLOOR, told=floor)
    assert judge(replace(nothing, told=floor + LEAST / 2), nothing).verdict == "not better"
    assert judge(replace(nothing, told=LEAST / 2, pas=0.0), nothing).verdict == "not better"
    assert judge(replace(nothing, told=0.01), nothing).verdict == "better"


def test_no_abnormal_spot_is_not_far_smoother_than_none():
    none = replace(FLOOR, pas=0.0)
    assert judge(none, none).verdict == "not better"


def test_mixing_needs_slices_and_spots():
    z, _, group = tissue(0.0)
    assert mixing(z[:5], np.array([0, 1, 0, 1, 0])) is None
    assert mixing(z, np.zeros(len(z))) is None
    assert mixing(z, group) > 0.9


def test_the_range_of_k_holds_the_choice_and_is_narrow_where_domains_are_clear():
    z, _, _ = tissue(8.0)
    curve = estimate_k(z, k_min=1, k_max=6, starts=4, seed=0)
    assert (curve.low, curve.chosen, curve.high) == (3, 3, 3)
    # bent latents: no mixture is right, and where the curve has its knee is a matter of taste
    t = np.random.default_rng(0).uniform(0, 6, 3000)
    bent = np.stack([np.cos(t), np.sin(t), t], axis=1) + 0.05 * np.random.default_rng(1).normal(size=(3000, 3))
    unsure = estimate_k(bent, k_min=2, k_max=12, starts=4, seed=0)
    assert unsure.low <= unsure.chosen <= unsure.high
    assert unsure.high > unsure.low


def test_resampling_is_seeded():
    z, _, _ = tissue(2.0)
    tried = np.arange(1, 5)
    fits = [fit_mixture(z, int(k), starts=2, seed=0) for k in tried]
    one, same = (resampled(z, fits, tried, ceiling=4, rng=np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(one, same)
    assert set(one) <= set(tried)
