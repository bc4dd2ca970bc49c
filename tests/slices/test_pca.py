import numpy as np
import pytest
from scipy import sparse

from stscale.errors import InputError
from stscale.slices import pca
from stscale.slices.pca import Gram

SIZES = (31, 7, 59)  # unequal, and not in order


def values(seed=0, sizes=SIZES, g=12, density=0.5):
    rng = np.random.default_rng(seed)
    rows = []
    for i, n in enumerate(sizes):
        dense = rng.gamma(2.0, 1.0 + np.arange(g), size=(n, g)) * (rng.random((n, g)) < density) + 0.3 * i
        rows.append(dense.astype(np.float32))
    return rows


def lacking():
    present = np.ones((3, 12), dtype=bool)
    present[0, :3] = present[1, 2:6] = present[2, 11] = False
    return present


def empty(rows, present):
    """Set genes that slices lack to 0."""
    for dense, has in zip(rows, present, strict=True):
        dense[:, ~has] = 0


def fitted(rows, *, step=None, n_pcs=5, present=None, every=1, **options):
    g = rows[0].shape[1]
    gram = Gram(np.ones((len(rows), g), dtype=bool) if present is None else present, every=every)
    for i, dense in enumerate(rows):
        for lo in range(0, len(dense), step or len(dense)):
            gram.add(i, sparse.csr_matrix(dense[lo : lo + (step or len(dense))]))
    return gram.components(n_pcs, **options)


def all_scores(components, rows):
    which = np.repeat(np.arange(len(rows)), [len(dense) for dense in rows])
    return components.scores(sparse.csr_matrix(np.concatenate(rows)), which)


def assert_same_axes(got, expected, *, rtol=1e-4):
    """Equal up to the sign of each column, relative to the column's largest value."""
    sign = np.sign((got * expected).sum(axis=0))
    assert np.abs(got - expected * sign).max(axis=0) == pytest.approx(0, abs=rtol * np.abs(expected).max())


@pytest.mark.parametrize("step", [1, 7, 59, 60])
@pytest.mark.parametrize("sparse_below", [0.0, 2.0])  # the dense and the sparse product
def test_equals_sklearn_for_any_block_size(monkeypatch, step, sparse_below):
    from sklearn.decomposition import PCA

    monkeypatch.setattr(pca, "SPARSE_BELOW", sparse_below)
    monkeypatch.setattr(pca, "SLAB", 5)  # 12 genes: two whole slabs and a rest
    monkeypatch.setattr(pca, "DENSE_BYTES", 8 * 12 * 3)  # three rows at a time
    rows = values()
    reference = PCA(5, svd_solver="full").fit(np.concatenate(rows).astype(np.float64))
    got = fitted(rows, step=step)
    assert_same_axes(all_scores(got, rows), reference.transform(np.concatenate(rows).astype(np.float64)))
    np.testing.assert_allclose(got.variance, reference.explained_variance_, rtol=1e-10)
    np.testing.assert_allclose(got.mean, reference.mean_, rtol=1e-10)


def test_iteration_for_many_genes_equals_sklearn():
    from sklearn.decomposition import PCA

    rows = values(seed=1, sizes=(90, 201), g=pca.SMALL + 88, density=0.1)
    X = np.concatenate(rows).astype(np.float64)
    reference = PCA(6, svd_solver="full").fit(X)
    got = fitted(rows, step=64, n_pcs=6)
    assert_same_axes(all_scores(got, rows), reference.transform(X))
    np.testing.assert_allclose(got.axes @ got.axes.T, np.eye(6), atol=1e-10)


def test_centring_per_slice_equals_centred_rows():
    from sklearn.decomposition import PCA

    rows = values(seed=2)
    centred = np.concatenate([dense - dense.mean(axis=0, dtype=np.float64) for dense in rows])
    reference = PCA(5, svd_solver="full").fit(centred)
    got = fitted(rows, step=10, center="slice")
    scores = all_scores(got, rows)
    assert_same_axes(scores, reference.transform(centred))
    for part in np.split(scores, np.cumsum(SIZES)[:-1]):
        np.testing.assert_allclose(part.mean(axis=0), 0, atol=1e-4)
    ratio = (len(centred) - 1) / (len(centred) - len(rows))
    np.testing.assert_allclose(got.variance, reference.explained_variance_ * ratio, rtol=1e-10)


@pytest.mark.parametrize("center", ["all", "slice"])
@pytest.mark.parametrize("scale", [False, True])
def test_axes_are_of_the_covariance_where_both_genes_are_there(center, scale):
    rows, present = values(seed=3), lacking()
    empty(rows, present)
    n, taken = sum(SIZES), 1 if center == "all" else 3
    counted = present.T @ np.array(SIZES)
    mean = sum(dense.sum(axis=0, dtype=np.float64) for dense in rows) / counted
    centres = [mean if center == "all" else dense.mean(axis=0, dtype=np.float64) for dense in rows]
    expected = np.zeros((12, 12))
    for j in range(12):
        for k in range(12):
            both = [i for i in range(3) if present[i, j] and present[i, k]]
            found = sum(np.sum((rows[i][:, j] - centres[i][j]) * (rows[i][:, k] - centres[i][k])) for i in both)
            expected[j, k] = found * n / (n - taken) / max(sum(SIZES[i] for i in both), 1)
    inverse = 1 / np.sqrt(np.diag(expected)) if scale else np.ones(12)
    variance, vectors = np.linalg.eigh(expected * inverse * inverse[:, None])
    got = fitted(rows, step=9, center=center, present=present, scale=scale)
    np.testing.assert_allclose(got.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(got.inverse, inverse, rtol=1e-6)
    np.testing.assert_allclose(got.variance, variance[::-1][:5], rtol=1e-6)
    np.testing.assert_allclose(np.abs(np.sum(got.axes / inverse * vectors[:, ::-1][:, :5].T, axis=1)), 1.0, rtol=1e-6)


def test_genes_that_no_slice_has_both_are_not_known_together():
    rows, present = values(seed=8, sizes=(40, 50)), np.ones((2, 12), dtype=bool)
    present[0, :6] = present[1, 6:] = False
    empty(rows, present)
    got = fitted(rows, n_pcs=12, present=present)
    assert ((np.abs(got.axes[:, :6]).max(axis=1) < 1e-9) | (np.abs(got.axes[:, 6:]).max(axis=1) < 1e-9)).all()
    assert np.isfinite(all_scores(got, rows)).all()


@pytest.mark.parametrize("center", ["all", "slice"])
@pytest.mark.parametrize("scale", [False, True])
def test_scores_are_the_mode_of_the_posterior(center, scale):
    """What maximises the density of a row, each gene at its precision, times the prior of scores: by an optimiser."""
    from scipy.optimize import minimize

    rows, present = values(seed=5), lacking()
    empty(rows, present)
    precision = np.where(present, np.random.default_rng(1).uniform(0.2, 4.0, present.shape), 0.0)
    got = fitted(rows, n_pcs=3, center=center, present=present, precision=precision, scale=scale)
    unit = got.axes / got.inverse
    assert (got.noise > 0).all()
    assert (got.noise < 1).all()
    scores = all_scores(got, rows)
    for i, at in ((0, 4), (1, 35), (2, 60)):
        row = (rows[i][at - sum(SIZES[:i])] - got.centre[i]) * got.inverse

        def against(z, i=i, row=row):  # in units of the noise: residual² · w and z² · N
            return np.sum(precision[i] * (row - z @ unit) ** 2) + np.sum(got.noise * z**2)

        best = minimize(against, np.zeros(3), tol=1e-10).x * (1.0 + got.noise)
        np.testing.assert_allclose(scores[at], best, atol=1e-3 * np.abs(scores).max())


def test_a_part_of_the_genes_does_not_shrink_scores():
    rng = np.random.default_rng(3)
    programmes = rng.standard_normal((2, 200))
    dense = (rng.standard_normal((300, 2)) @ programmes + rng.standard_normal((300, 200))).astype(np.float32)
    present = np.ones((2, 200), dtype=bool)
    present[1, rng.permutation(200)[:100]] = False
    part = np.where(present[1], dense, 0.0).astype(np.float32)
    got = fitted([dense, part], n_pcs=2, present=present)
    whole, scores = np.split(all_scores(got, [dense, part]), 2)
    filled = (part - np.where(present[1], got.centre[1], 0.0)) @ got.axes.T
    assert (np.sum(whole * filled, axis=0) / np.sum(whole**2, axis=0) < 0.7).all()
    np.testing.assert_allclose(np.sum(whole * scores, axis=0) / np.sum(whole**2, axis=0), 1.0, atol=0.05)


def test_rows_kept_for_the_noise_do_not_depend_on_blocks():
    rows = values(seed=6)
    noise = [fitted(rows, step=step, every=4).noise for step in (1, 3, 4, 50, None)]
    for other in noise[1:]:
        np.testing.assert_allclose(other, noise[0], rtol=1e-9)
    assert not np.allclose(noise[0], fitted(rows, every=1).noise, rtol=1e-3)


def test_largest_loading_is_positive_and_order_descends():
    got = fitted(values(seed=4), n_pcs=12)
    largest = np.abs(got.axes).argmax(axis=1)
    assert (got.axes[np.arange(12), largest] > 0).all()
    assert (np.diff(got.variance) <= 0).all()


def test_more_components_than_rows_or_genes_are_lowered_with_a_note():
    few = fitted(values(sizes=(2, 3)), n_pcs=50)
    assert few.axes.shape == (4, 12)
    assert few.notes == ("n_pcs = 50 lowered to 4: 5 spots, 12 genes",)
    assert fitted(values(), n_pcs=50).axes.shape == (12, 12)
    assert fitted(values(sizes=(2, 3)), n_pcs=50, center="slice").axes.shape == (3, 12)
    assert fitted(values(), n_pcs=12).notes == ()


def test_one_spot_is_refused():
    with pytest.raises(InputError, match="at least two spots"):
        fitted(values(sizes=(1,)))
    with pytest.raises(InputError, match="at least two spots"):
        fitted(values(sizes=(1, 1, 1)), center="slice")


def test_rank_deficient_rows_have_no_negative_variance():
    dense = np.repeat(values(sizes=(2,))[0], 20, axis=0)
    got = fitted([dense], n_pcs=6)
    assert (got.variance >= 0).all()
    assert np.isfinite(all_scores(got, [dense])).all()


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("center", ["all", "slice"])
def test_weights_are_those_of_the_covariance(center, scale):
    rng = np.random.default_rng(3)
    rows = values(seed=4, sizes=(310, 70, 150))
    weight = rng.gamma(1.0, 1.0, size=(3, 12))
    weight[0, 4] = weight[2, 7] = 0.0
    empty(rows, weight > 0)
    got = fitted(rows, step=33, present=weight, center=center, scale=scale)
    n = np.array([len(dense) for dense in rows])
    means = np.array([dense.mean(axis=0, dtype=np.float64) for dense in rows])
    overall = (n @ means) / (n @ (weight > 0))
    sums, pairs = np.zeros((12, 12)), np.zeros((12, 12))
    for dense, own, mean in zip(rows, weight, means, strict=True):
        apart = np.sqrt(own) * (dense - (mean if center == "slice" else overall))
        sums += apart.T @ apart
        pairs += len(dense) * np.sqrt(np.outer(own, own))
    covariance = sums / pairs * n.sum() / (n.sum() - (3 if center == "slice" else 1))
    if scale:
        deviation = np.sqrt(np.diag(covariance))
        covariance /= np.outer(deviation, deviation)
    values_, vectors = np.linalg.eigh(covariance)
    np.testing.assert_allclose(got.variance, values_[::-1][:5], rtol=1e-9)
    unit = got.axes / got.inverse
    np.testing.assert_allclose(np.abs(unit @ vectors[:, ::-1][:, :5]), np.eye(5), atol=1e-6)
    np.testing.assert_allclose(got.mean, overall, rtol=1e-6)
    np.testing.assert_allclose(got.slice_mean, means, rtol=1e-6)


def test_weights_of_one_change_nothing():
    rows = values(seed=5)
    np.testing.assert_array_equal(fitted(rows).axes, fitted(rows, present=np.ones((3, 12))).axes)
