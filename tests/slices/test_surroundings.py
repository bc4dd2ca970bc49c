import numpy as np
import pytest
from scipy import sparse
from scipy.spatial.distance import cdist

from stscale.slices import surroundings
from stscale.slices.gene_weights import FLOOR
from stscale.slices.pca import Gram
from stscale.slices.surroundings import Surroundings

SIZES = (70, 9, 133)  # unequal; windows of 16 cut none of them evenly
G = 14


def tissue(seed=0, sizes=SIZES, noise=1.0):
    """Rows in an order of the tissue, half of the genes smooth over it, and coordinates."""
    rng = np.random.default_rng(seed)
    out = []
    for i, n in enumerate(sizes):
        xy = rng.random((n, 2)) * [n, 4.0]
        xy = xy[np.argsort(xy[:, 0])]
        smooth = np.sin(xy[:, :1] * 6.0 / n * np.arange(1, G // 2 + 1)) + 0.3 * i
        values = np.hstack([smooth, np.zeros((n, G - G // 2))]) + noise * rng.standard_normal((n, G))
        out.append((np.where(rng.random((n, G)) < 0.8, values, 0.0).astype(np.float32), xy))
    return out


def averaged(dense, xy, *, every, window):
    """Naive averages of one slice and the noise each keeps."""
    rows, noise, lo = [], [], 0
    while lo < len(dense):
        hi = lo + window if len(dense) - lo >= 2 * window else len(dense)
        k = min(7, hi - lo)
        near = np.argsort(cdist(xy[lo:hi], xy[lo:hi]), axis=1)[:, :k]
        weights = np.zeros((hi - lo, hi - lo))
        np.put_along_axis(weights, near, 1.0 / k, axis=1)
        weights = (weights @ weights)[::every]
        rows.append(weights @ dense[lo:hi].astype(np.float64))
        noise.append((weights**2).sum(axis=1))
        lo = hi
    return np.concatenate(rows), np.concatenate(noise)


def fitted(slices, *, every, step, n_pcs=4, **options):
    gram = Gram(np.ones((len(slices), G), dtype=bool), Surroundings(every))
    for i, (dense, xy) in enumerate(slices):
        for lo in range(0, len(dense), step):
            gram.add(i, sparse.csr_matrix(dense[lo : lo + step]), xy[lo : lo + step])
    return gram.components(n_pcs, **options), gram


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    monkeypatch.setattr(surroundings, "WINDOW", 16)


@pytest.mark.parametrize("center", ["all", "slice"])
@pytest.mark.parametrize("coherence", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("every", [1, 3])
def test_axes_are_those_of_naive_averages(center, coherence, every) -> None:
    slices = tissue()
    got, gram = fitted(slices, every=every, step=11, center=center, scale=True, coherence=coherence)
    parts = [averaged(dense, xy, every=every, window=16) for dense, xy in slices]
    noise = np.concatenate([share for _, share in parts]).mean()
    spots = [dense.astype(np.float64) for dense, _ in slices]
    common = np.concatenate(spots).mean(axis=0)
    means = [dense.mean(axis=0) if center == "slice" else common for dense in spots]
    taken = 3 if center == "slice" else 1
    centred = np.concatenate([dense - mean for dense, mean in zip(spots, means, strict=True)])
    variance = (centred**2).sum(axis=0) / (len(centred) - taken)
    X = np.concatenate([rows - mean for (rows, _), mean in zip(parts, means, strict=True)])
    shared = ((X**2).sum(axis=0) / (len(X) - taken) / variance - noise) / (1.0 - noise)
    weight = np.clip(shared, FLOOR, 1.0) ** coherence / np.sqrt(variance)
    np.testing.assert_allclose(got.inverse, weight, rtol=1e-9)
    values, vectors = np.linalg.eigh((X * weight).T @ (X * weight))
    np.testing.assert_allclose(got.variance, values[::-1][:4] / (len(X) - taken), rtol=1e-9)
    axes = vectors[:, ::-1][:, :4].T * weight
    np.testing.assert_allclose(np.abs(np.sum(got.axes / weight * axes / weight, axis=1)), 1.0, rtol=1e-9)
    # scores are of the spots themselves
    which = np.repeat(np.arange(3), SIZES)
    scores = got.scores(sparse.csr_matrix(np.concatenate([dense for dense, _ in slices])), which)
    np.testing.assert_allclose(scores, centred @ got.axes.T, atol=1e-5)
    along = gram.spread(np.sum(scores.astype(np.float64) ** 2, axis=0))
    np.testing.assert_allclose(along, ((centred @ got.axes.T) ** 2).sum(axis=0) / (len(centred) - taken), rtol=1e-5)
    # and so is the share of noise: what the axes leave over, a direction
    along = ((centred @ got.axes.T) ** 2).mean(axis=0)
    beyond = ((weight**2 * variance).sum() - along.sum()) / (G - 4)
    np.testing.assert_allclose(got.noise, np.minimum(beyond / along, 1.0), rtol=1e-6)  # of float32 scores


def test_blocks_do_not_show_beyond_rounding() -> None:
    slices = tissue(seed=1)
    first = fitted(slices, every=2, step=5)[0]
    for step in (1, 16, 33, 200):
        again = fitted(slices, every=2, step=step)[0]
        np.testing.assert_allclose(again.axes, first.axes, atol=1e-9)


def test_smooth_genes_outweigh_noise_and_lead_the_axes() -> None:
    slices = tissue(seed=2, sizes=(900, 700), noise=2.0)
    around = fitted(slices, every=1, step=64, scale=True, coherence=0.25)[0]
    assert around.inverse[: G // 2].min() > around.inverse[G // 2 :].max()
    loads = np.sum(around.axes[:2, : G // 2] ** 2, axis=1) / np.sum(around.axes[:2] ** 2, axis=1)
    assert loads.min() > 0.95
    spots = Gram(np.ones((2, G), dtype=bool))
    for i, (dense, _) in enumerate(slices):
        spots.add(i, sparse.csr_matrix(dense))
    bare = spots.components(4, scale=True, coherence=0.25)
    assert np.sum(bare.axes[1, : G // 2] ** 2) / np.sum(bare.axes[1] ** 2) < loads.min()
    spread = [np.std(np.concatenate([dense[:, k] for dense, _ in slices]), ddof=1) for k in range(G)]
    np.testing.assert_allclose(bare.inverse * spread, 1.0, rtol=1e-5)  # axes of spots: genes weigh alike


def test_few_spots_in_one_place_and_alone() -> None:
    rng = np.random.default_rng(3)
    rows = rng.poisson(3.0, (5, G)).astype(np.float32)
    places = np.zeros((5, 2))
    found, _ = fitted([(rows, places), (rows[:1], places[:1])], every=1, step=2, n_pcs=50)
    assert found.notes == (f"n_pcs = 50 lowered to 5: 6 spots, {G} genes",)
    assert np.isfinite(found.axes).all()
    # all five are each other's neighbours: their averages are the same
    np.testing.assert_allclose(found.variance[1:], 0.0, atol=1e-12)


def test_rows_wait_for_their_window() -> None:
    dense, xy = tissue(seed=4, sizes=(100,))[0]
    around = Surroundings(4)
    rows = sparse.csr_matrix(dense)
    seen = list(around.add(0, rows[:31], xy[:31]))
    assert seen == []
    seen = list(around.add(0, rows[31:], xy[31:]))
    assert [part.rows.shape for part in seen] == [(4, G)] * 5
    last = list(around.rest())
    assert [part.rows.shape for part in last] == [(5, G)]  # 20 rows: fewer than two windows
    assert list(around.rest()) == []


def test_rows_without_places_are_refused() -> None:
    gram = Gram(np.ones((1, G), dtype=bool), Surroundings(4))
    with pytest.raises(ValueError, match="without xy"):
        gram.add(0, sparse.csr_matrix(np.ones((3, G), dtype=np.float32)))
