import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import chisquare, entropy
from sklearn.metrics import silhouette_samples

from stscale.analysis import metrics_mixing as module
from stscale.analysis.metrics_mixing import batch_asw, clisi, elsewhere, graph_connectivity, ilisi, kbet, lisi, reach
from stscale.errors import InputError
from stscale.graphs.neighbors import Neighbors, search


def near(z, k):
    z = np.asarray(z, np.float32)
    return search(z, z, k, exclude_self=True)


def naive_lisi(neighbors, codes, perplexity):
    out = []
    for index, distance in zip(neighbors.index, neighbors.distance.astype(np.float64), strict=True):

        def excess(beta, distance=distance):
            return entropy(np.exp(-beta * (distance - distance.min()))) - np.log(perplexity)

        p = np.exp(-brentq(excess, 1e-6, 1e4, xtol=1e-13) * (distance - distance.min()))
        p /= p.sum()
        out.append(1 / sum(p[codes[index] == c].sum() ** 2 for c in np.unique(codes)))
    return np.array(out)


@pytest.mark.parametrize("rows", [8192, 37])
def test_lisi_and_kbet_equal_the_loop(rows, monkeypatch):
    monkeypatch.setattr(module, "ROWS", rows)
    rng = np.random.default_rng(0)
    codes = rng.permutation(np.repeat([0, 1, 2], [80, 45, 25]))
    neighbors = near(rng.normal(size=(150, 4)) + codes[:, None] * 0.5, 45)
    np.testing.assert_allclose(lisi(neighbors, codes, perplexity=15), naive_lisi(neighbors, codes, 15), rtol=1e-3)
    share = np.bincount(codes) / 150
    p = [chisquare(np.bincount(codes[i], minlength=3), 45 * share).pvalue for i in neighbors.index]
    assert kbet(neighbors, codes) == np.mean(np.array(p) > 0.05)
    assert 0 < kbet(neighbors, codes) < 1


def test_two_mixed_batches_have_lisi_two_and_separated_one():
    rng = np.random.default_rng(1)
    z = rng.normal(size=(1200, 3))
    batch = np.array(["one", "two"])[rng.integers(0, 2, 1200)]
    mixed = near(z, 90)
    assert ilisi(mixed, batch) == pytest.approx(2.0, abs=0.1)
    assert ilisi(mixed, batch, scaled=True) == pytest.approx(ilisi(mixed, batch) - 1)
    assert kbet(mixed, batch) > 0.9
    apart = near(z + 100 * (batch == "one")[:, None], 90)
    assert ilisi(apart, batch) == pytest.approx(1.0)
    assert kbet(apart, batch) == 0.0
    assert clisi(apart, batch, scaled=True) == pytest.approx(1.0)
    assert clisi(mixed, batch, scaled=True) == pytest.approx(1 - ilisi(mixed, batch, scaled=True))
    assert np.isnan(ilisi(mixed, np.zeros(1200), scaled=True))


def test_neighbours_in_the_tissue_hide_that_slices_mix():
    """Latents of two like slices, noise averaged over space: alike, and LISI says apart."""
    rng = np.random.default_rng(2)
    xy = np.stack(np.meshgrid(np.arange(30.0), np.arange(30.0)), axis=-1).reshape(-1, 2)
    close = np.linalg.norm(xy[:, None] - xy[None], axis=2) <= 2
    smooth = close / close.sum(axis=1, keepdims=True)
    z = np.concatenate([smooth @ rng.normal(size=(900, 24)) for _ in range(2)]).astype(np.float32)
    batch, both = np.repeat([0, 1], 900), np.concatenate([xy, xy])
    wide = near(z, 170)
    few = Neighbors(index=wide.index[:, :90], distance=wide.distance[:, :90])
    far = elsewhere(wide, both, batch, reach(both, batch))
    assert far.index.shape == (1800, 90)
    np.testing.assert_allclose(reach(both, batch), 4.5)
    assert reach(both[:3], [0, 0, 1]).tolist() == [4.5, 4.5, 0.0]
    few_spots = elsewhere(near(z, 12), both, batch, np.full(1800, np.inf), k=12)  # all of the own slice is close
    assert (np.diff(few_spots.distance, axis=1) >= 0).all()
    step = np.linalg.norm(both[far.index] - both[:, None], axis=2)
    assert ((batch[far.index] != batch[:, None]) | (step > 4.5)).all()
    assert (np.diff(far.distance, axis=1) >= 0).all()
    assert ilisi(few, batch, scaled=True) < 0.5 < 0.75 < ilisi(far, batch, scaled=True)
    apart = near(z + 100 * batch[:, None].astype(np.float32), 170)
    assert ilisi(elsewhere(apart, both, batch, reach(both, batch)), batch, scaled=True) < 0.01


def test_unlabelled_spots_do_not_count():
    rng = np.random.default_rng(2)
    neighbors = near(rng.normal(size=(200, 2)), 30)
    labels = np.array(["a", "b", ""])[rng.integers(0, 3, 200)]
    values = lisi(neighbors, labels, perplexity=10)
    np.testing.assert_array_equal(np.isnan(values), labels == "")
    assert np.nanmax(values) <= 2 + 1e-9
    assert clisi(neighbors, labels, perplexity=10) == pytest.approx(np.nanmedian(values))


def test_equal_distances_weigh_equally():
    neighbors = near(np.zeros((60, 2)), 40)
    values = lisi(neighbors, np.arange(60) % 2, perplexity=13)
    count = np.array([np.bincount(np.arange(60)[i] % 2, minlength=2) for i in neighbors.index]) / 40
    np.testing.assert_allclose(values, 1 / np.sum(count**2, axis=1))


def test_batch_asw_equals_the_loop_over_domains():
    rng = np.random.default_rng(3)
    batch, domain = rng.integers(0, 3, 180), rng.integers(0, 4, 180)
    batch[domain == 3] = 1  # lies in one slice: left out
    z = rng.normal(size=(180, 3)) + batch[:, None] * 0.4
    parts = [1 - np.abs(silhouette_samples(z[domain == d], batch[domain == d])) for d in range(3)]
    assert batch_asw(z, batch, domain) == pytest.approx(np.mean([p.mean() for p in parts]))
    assert np.isnan(batch_asw(z, np.zeros(180), domain))


def test_graph_connectivity_by_hand():
    # 0-1 and 2 of label a (3 joins them but is b); b: 3-4 joined by a one-way edge
    index = np.array([[1], [0], [3], [2], [3]])
    neighbors = Neighbors(index=index, distance=np.ones((5, 1), np.float32))
    assert graph_connectivity(neighbors, list("aaabb")) == pytest.approx((2 / 3 + 1) / 2)
    assert graph_connectivity(neighbors, ["a", "a", "a", "", "b"]) == pytest.approx((2 / 3 + 1) / 2)
    assert graph_connectivity(neighbors, list("aabbb")) == 1.0


def test_bad_input_is_refused():
    neighbors = near(np.random.default_rng(4).normal(size=(50, 2)), 20)
    with pytest.raises(InputError, match="perplexity 30"):
        ilisi(neighbors, np.zeros(50))
    with pytest.raises(InputError, match="50 spots and 40 labels"):
        kbet(neighbors, np.zeros(40))
    with pytest.raises(InputError, match="found one"):
        kbet(neighbors, np.zeros(50))
