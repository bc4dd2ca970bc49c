import numpy as np
import pytest

from stscale.analysis.beside import Beside
from stscale.analysis.domains import cluster, cluster_per_slice
from stscale.analysis.features import Reduction
from stscale.analysis.metrics import ari
from stscale.analysis.predictor_file import load_predictor, save_predictor
from stscale.config import Domains
from stscale.errors import InputError

TWO = Domains(k=4, n_init=6)


@pytest.fixture(scope="module")
def parts():
    """Each part tells two of four groups from the others; their scales differ by a thousand."""
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 4, 600)
    left, right = rng.normal(0, 0.3, (600, 5)).astype(np.float32), rng.normal(0, 0.3, (600, 3)).astype(np.float32)
    left[:, 0] += 3 * (truth % 2)
    right[:, 1] += 3 * (truth // 2)
    return left * 1000, right, truth


def test_rows_are_those_of_the_parts(parts):
    left, right, _ = parts
    both = Beside((left, right), (1.0, 1.0))
    whole = np.concatenate([left, right], axis=1)
    assert both.shape == whole.shape
    assert len(both) == len(whole)
    pick = np.array([5, 2, 2, 99])
    assert np.array_equal(both[10:20], whole[10:20])
    assert np.array_equal(both[pick], whole[pick])
    assert np.array_equal(both.take(pick)[:], whole[pick])


@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_parts_have_the_variance_asked_for(parts, weight):
    left, right, _ = parts
    both = Beside((left, right), (1.0, weight))
    fit = Reduction.fit(both[:], n_components=0, l2_normalize=False, parts=[(5, 1.0), (3, weight)])
    seen = fit.apply(both[:])
    assert seen[:, :5].var(axis=0).sum() == pytest.approx(1.0)
    assert seen[:, 5:].var(axis=0).sum() == pytest.approx(weight)
    # within a part, nothing but its scale has changed
    np.testing.assert_allclose(
        seen[:, 5:], (right - right.mean(axis=0)) * (seen[0, 5] / (right - right.mean(0))[0, 0]), rtol=1e-4, atol=1e-5
    )


def test_a_constant_part_says_nothing(parts):
    left, _, _ = parts
    fit = Reduction.fit(
        np.concatenate([left, np.ones((600, 2), np.float32)], axis=1),
        n_components=0,
        l2_normalize=False,
        parts=[(5, 1.0), (2, 1.0)],
    )
    assert fit.scale is not None
    assert np.isfinite(fit.scale).all()


def test_domains_need_both_parts(parts, tmp_path):
    left, right, truth = parts
    both = Beside((left, right), (1.0, 1.0))
    fit = cluster(both, TWO, seed=0)
    assert ari(truth, fit.labels) > 0.95
    assert ari(truth, cluster(left, TWO, seed=0).labels) < 0.7
    assert np.array_equal(fit.predict(both), fit.labels)
    save_predictor(tmp_path / "p.npz", fit.predictor)
    assert np.array_equal(load_predictor(tmp_path / "p.npz").predict(both), fit.labels)
    with pytest.raises(InputError, match="expected"):
        fit.predict(left)


def test_slice_by_slice_too(parts):
    left, right, truth = parts
    number = np.arange(600) % 2
    found = cluster_per_slice(Beside((left, right), (1.0, 1.0)), number, TWO, seed=0)
    for s in (0, 1):
        assert ari(truth[number == s], found.labels[number == s]) > 0.95
