from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from made_slices import gene_names, write_slice

from stscale.analysis.imputation import Loadings
from stscale.config import Preprocess
from stscale.slices import Collection, build_features, kinds
from stscale.slices.kinds import beside_kinds, find_kinds
from stscale.slices.projection import Projection
from stscale.slices.shared_kinds import nearest, step

P = 5
LAYERS = np.random.default_rng(3).normal(size=(8, P)) * 3.0
"""Where eight kinds of tissue lie on the axes."""


def crossed(first, last, n, times):
    """Layers of a slice that crosses the layers `first` to `last` some times, in the order of the tissue."""
    at = np.abs(np.linspace(0, times, n) % 2 - 1) * (last - first) + first
    return np.minimum(at.astype(int), last - 1)


def slab(first, last, n, *, seed, noise=0.8):
    """Rows of such a slice, and their layers."""
    layer = crossed(first, last, n, times=6)
    return LAYERS[layer] + noise * np.random.default_rng(seed).standard_normal((n, P)), layer


def slices(parts, *, effect, noise=0.8):
    """Rows around the slices' own means, slices, layers, and where the means lie around the common one."""
    rng = np.random.default_rng(11)
    made = [slab(first, last, n, seed=seed, noise=noise) for seed, (first, last, n) in enumerate(parts)]
    rows = np.concatenate([rows + effect * rng.standard_normal(P) for rows, _ in made])
    group = np.repeat(np.arange(len(parts)), [n for _, _, n in parts])
    means = np.stack([rows[group == i].mean(axis=0) for i in range(len(parts))])
    return rows - means[group], group, np.concatenate([layer for _, layer in made]), means - rows.mean(axis=0)


def off(rows, group, layer, shared):
    """Mean distance between slices of the layers that all have."""
    found = []
    for k in shared:
        at = np.stack([rows[(group == i) & (layer == k)].mean(axis=0) for i in np.unique(group)])
        found.append(np.linalg.norm(at - at.mean(axis=0), axis=1).mean())
    return float(np.mean(found))


UNEQUAL = ((0, 5, 700), (3, 8, 400), (0, 8, 1000))
ALIKE = ((0, 8, 700), (0, 8, 400), (0, 8, 1000))


@pytest.mark.parametrize("effect", [0.0, 0.5])
def test_slices_of_unequal_tissue_are_moved_to_what_they_share(effect) -> None:
    rows, group, layer, apart = slices(UNEQUAL, effect=effect)
    found = find_kinds(rows, group, apart, seed=0)
    assert found.moved
    assert kinds.GAIN < found.gain < 1
    assert found.centres.shape == (kinds.KEEP.steps[-1], P)
    own, moved = (off(rows + d[group], group, layer, (3, 4)) for d in (np.zeros((3, P)), found.move))
    assert own > 1.0
    assert moved < 0.15
    # all rows together stay where they were
    assert np.allclose((rows + found.move[group]).mean(axis=0), 0.0, atol=1e-9)
    assert len(found.notes()) == 1
    assert f"{100 * found.gain:.1f} %" in found.notes()[0]


def test_one_slice_among_many_is_found() -> None:
    rows, group, layer, apart = slices(((0, 5, 400), *[(0, 8, 400)] * 11), effect=0.5, noise=0.4)
    found = find_kinds(rows, group, apart, seed=0)
    assert found.moved
    assert found.own.argmax() == 0
    assert found.own[0] > kinds.OWN > found.own[1:].max()
    first = np.minimum(group, 1)  # beside all others together
    own, moved = (off(rows + d[group], first, layer, range(5)) for d in (np.zeros((12, P)), found.move))
    assert moved < 0.1 * own


@pytest.mark.parametrize("effect", [0.0, 0.5, 3.0])
def test_slices_of_the_same_tissue_keep_their_means(effect) -> None:
    rows, group, _, apart = slices(ALIKE, effect=effect)
    found = find_kinds(rows, group, apart, seed=0)
    assert found.gain < kinds.GAIN
    assert not found.move.any()
    assert not found.moved
    assert found.notes() == ()
    assert found.centres.shape == (0, P)


def test_slices_that_share_no_kind_of_tissue_stay_where_they_are_around_the_common_mean() -> None:
    rows, group, _, apart = slices(((0, 3, 500), (5, 8, 500)), effect=0.0, noise=0.2)
    fit = kinds.KEEP.moved(rows, group, apart, 0)
    assert np.allclose(fit.move, apart, atol=1e-6)


def test_the_step_is_that_of_least_squares() -> None:
    rng = np.random.default_rng(5)
    s, k, n = 4, 3, 300
    group, label = rng.integers(0, s, n) ** 2 % s, rng.integers(0, k, n)
    group[:s], label[:k] = np.arange(s), np.arange(k)
    rows = rng.standard_normal((n, P)) + 2.0 * rng.standard_normal((s, P))[group] + group[:, None] * label[:, None]
    count, total = np.zeros((s, k)), np.zeros((s, k, P))
    np.add.at(count, (group, label), 1.0)
    np.add.at(total, (group, label), rows)
    found = step(count, total)
    # y + d − m = 0 in least squares, over d and m together
    design = np.hstack([np.eye(s)[group], -np.eye(k)[label]])
    want = np.linalg.lstsq(design, -rows, rcond=None)[0][:s]
    assert np.allclose(found - found.mean(axis=0), want - want.mean(axis=0), atol=1e-8)


def test_a_search_ends_in_means_of_kinds_and_never_gets_worse() -> None:
    rows, group, _, apart = slices(UNEQUAL, effect=0.5)
    fit = kinds.KEEP.moved(rows, group, apart, 0)
    moved = rows + fit.move[group]
    label, left = nearest(moved, fit.centres)
    assert np.allclose(left, ((moved - fit.centres[label]) ** 2).sum(axis=1))
    assert left.sum() == pytest.approx(fit.left)
    for at in (np.zeros_like(apart), apart):
        assert fit.left < kinds.KEEP.kept(rows, group, at, 0).left


def test_one_slice_is_not_moved() -> None:
    rows, group, _, apart = slices(((0, 8, 600),), effect=0.0)
    found = find_kinds(rows, group, apart, seed=0)
    assert np.isnan(found.gain)
    assert not found.moved
    assert found.centres.shape == (0, P)


@pytest.mark.parametrize("n", [1, kinds.FEWEST - 1])
def test_few_averages_tell_nothing(n) -> None:
    rows, group, _, apart = slices(((0, 8, n),), effect=0.0)
    found = find_kinds(rows, group, apart, seed=0)
    assert found.centres.shape == (0, P)
    assert not found.moved
    known = replace(found, centres=LAYERS, move=np.ones((1, P)))
    assert not beside_kinds(rows, known, apart[0]).moved
    assert beside_kinds(np.ones((500, P)), known, apart[0]).moved


def test_slices_of_a_few_spots_are_taken_along() -> None:
    rows, group, _, apart = slices((*UNEQUAL, (2, 4, 1)), effect=0.0)
    found = find_kinds(rows, group, apart, seed=0)
    assert found.moved
    assert np.isfinite(found.move).all()
    assert np.isfinite(found.own).all()


@pytest.mark.parametrize(("first", "last"), [(0, 8), (4, 8), (0, 4)])
def test_a_new_slice_is_moved_where_those_of_the_run_were(first, last) -> None:
    rows, group, layer, apart = slices(UNEQUAL, effect=0.0)
    known = find_kinds(rows, group, apart, seed=0)
    new, at = slab(first, last, 400, seed=9)
    common = np.concatenate([slab(*part, seed=s)[0] for s, part in enumerate(UNEQUAL)]).mean(axis=0)
    found = beside_kinds(new - new.mean(axis=0), known, new.mean(axis=0) - common + 0.3)
    moved, own = rows + known.move[group], new - new.mean(axis=0)
    apart = {
        name: np.mean([np.linalg.norm(z[at == k].mean(axis=0) - moved[layer == k].mean(axis=0)) for k in np.unique(at)])
        for name, z in (("kinds", own + found.move[0]), ("own", own))
    }
    assert apart["kinds"] < 0.3
    assert apart["kinds"] < (1.0 if last - first == 8 else 0.3) * apart["own"]


def test_a_slice_given_again_lies_where_it_lay() -> None:
    rows, group, _, apart = slices(UNEQUAL, effect=0.5)
    known = find_kinds(rows, group, apart, seed=0)
    for i in range(3):
        found = beside_kinds(rows[group == i], known, apart[i])
        assert np.allclose(found.move[0], known.move[i], atol=0.02)


def test_averages_are_of_windows_over_every_slice(monkeypatch) -> None:
    rng = np.random.default_rng(2)
    offsets = np.array([0, 300, 420, 2000])
    xy, scores = rng.random((2000, 2)), rng.standard_normal((2000, P)).astype(np.float32)
    asked = []

    def read(lo, hi):
        asked.append((lo, hi))
        return scores[lo:hi]

    rows, group = kinds.averages(read, xy, offsets)
    assert asked == list(pairwise(offsets.tolist()))
    assert np.bincount(group).tolist() == [300, 120, 1580]
    near = np.argsort(((xy[:300, None] - xy[None, :300]) ** 2).sum(axis=2), axis=1)[:, :7]
    once = np.zeros((300, 300))
    np.put_along_axis(once, near, 1 / 7, axis=1)
    assert np.allclose(rows[:300], once @ once @ scores[:300], atol=1e-6)

    asked.clear()
    for name, value in (("AVERAGES", 200), ("MANY", 100), ("WINDOW", 40), ("WINDOWS", 5), ("FEWEST", 20)):
        monkeypatch.setattr(kinds, name, value)
    rows, group = kinds.averages(read, xy, offsets)
    assert max(hi - lo for lo, hi in asked) == 40 * 4 - 40  # the small slice is looked at whole
    assert len(asked) == 5 + 1 + 5
    assert asked[-1] == (1960, 2000)
    assert len(rows) == len(group) <= 220
    assert np.bincount(group).min() >= 20


# ---- in feature stores

GENES = 120


WIDE = 10


def sample(folder, first, last, n, *, seed, genes=slice(None)):
    """A store of counts of layers that have markers, whose slice moves every gene, and the layers of its rows."""
    layer = crossed(first, last, n, times=2)
    base = np.random.default_rng(1).gamma(2.0, 2.0, GENES)
    marks = np.exp(0.8 * np.random.default_rng(2).standard_normal((8, GENES)))
    rng = np.random.default_rng(seed)
    X = rng.poisson(base * marks[layer] * np.exp(0.2 * rng.standard_normal(GENES)))
    xy = np.stack([np.arange(n) % WIDE, np.arange(n) // WIDE], axis=1).astype(float)
    # rows in the order of the tissue: what `write_slice` shuffles is shuffled back first
    back = np.argsort(np.random.default_rng(seed).permutation(n))
    names = gene_names(GENES)[genes]
    store = write_slice(folder / f"s{seed}.zarr", X[back][:, genes], names, name=f"s{seed}", xy=xy[back], seed=seed)
    return store, layer


def options(**changes):
    return Preprocess(**{"n_hvg": GENES, "n_pcs": 20, "min_shared_genes": 20, "gain": "all", **changes})


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    parts = enumerate(((0, 5, 900), (3, 8, 700), (0, 8, 1500)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kinds, "REPEATS", 1)
        yield _stores(folder, parts)


def _stores(folder, parts):
    made, layers = zip(*[sample(folder, *part, seed=i) for i, part in parts], strict=True)
    collection = Collection.build(list(made))
    built = {
        center: build_features(collection, folder / f"{center}.zarr", config=options(center=center), seed=0)
        for center in ("kinds", "slice", "all")
    }
    return collection, np.concatenate(layers), built


def test_scores_are_those_around_means_moved(stores) -> None:
    _, layer, built = stores
    moved, own = built["kinds"], built["slice"]
    found = moved.kinds()
    assert found.moved
    assert moved.notes[-1:] == found.notes()
    group = moved.slice()
    want = own.pca(0, own.n) + found.move[group]
    assert np.allclose(moved.pca(0, moved.n), want, atol=1e-4)
    assert np.array_equal(moved.pca_components(), own.pca_components())
    assert np.array_equal(moved.pca_variance(), own.pca_variance())
    apart = [off(f.pca(0, f.n).astype(float), group, layer, (3, 4)) for f in (moved, own)]
    assert apart[0] < 0.4 * apart[1]
    for center in ("slice", "all"):
        none = built[center].kinds()
        assert none.centres.shape == (0, 20)
        assert not none.moved
        assert np.isnan(none.gain)


def test_slices_that_lack_genes_are_moved_as_far_as_the_others_tell(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(kinds, "REPEATS", 1)
    parts = ((0, 5, 900, slice(None)), (3, 8, 700, slice(None, 80)), (0, 8, 1500, slice(30, None)))
    made, layers = zip(
        *[sample(tmp_path, *part, seed=i, genes=genes) for i, (*part, genes) in enumerate(parts)], strict=True
    )
    found = {
        center: build_features(
            Collection.build(list(made), genes="union"), tmp_path / center, config=options(center=center), seed=0
        )
        for center in ("kinds", "slice")
    }
    assert found["kinds"].kinds().moved
    apart = {
        center: off(f.pca(0, f.n).astype(float), f.slice(), np.concatenate(layers), (3, 4))
        for center, f in found.items()
    }
    assert apart["kinds"] < 0.6 * apart["slice"]


def test_genes_are_decoded_from_moved_scores(stores) -> None:
    _, _, built = stores
    features = built["kinds"]
    own = Loadings.build(built["slice"], np.arange(GENES), "slice")
    moved = Loadings.build(features, np.arange(GENES), "kinds")
    for i, (lo, hi) in enumerate(pairwise(features.offsets().tolist())):
        # as far as the axes go: where a slice lies does not show in its genes
        want = own.expression(built["slice"].pca(lo, hi), i)
        assert np.allclose(moved.expression(features.pca(lo, hi), i), want, atol=1e-4)
        assert not np.allclose(own.expression(features.pca(lo, hi), i), want, atol=1e-2)


def test_a_new_slice_of_a_part_of_the_tissue_is_moved_to_the_kinds_of_the_run(stores, tmp_path) -> None:
    _, layer, built = stores
    features = built["kinds"]
    new, own = sample(tmp_path, 4, 8, 800, seed=7)
    known = features.pca(0, features.n)
    projection = Projection(features, options())
    found = projection.features(new, projection.panel(new), tmp_path / "new-features.zarr")
    assert found.kinds().moved
    moved = found.pca(0, found.n)
    at = {}
    for name, z in (("kinds", moved), ("slice", moved - found.kinds().move[0])):
        apart = [np.linalg.norm(z[own == k].mean(axis=0) - known[layer == k].mean(axis=0)) for k in range(4, 8)]
        at[name] = float(np.mean(apart))
    assert at["kinds"] < 0.5 * at["slice"]


def test_what_is_shown_before_any_correction_is_the_same_whatever_was_moved(stores) -> None:
    from types import SimpleNamespace

    from stscale.report.fitted import Fitted

    _, _, built = stores
    rows = np.arange(0, built["kinds"].n, 7)
    kinds_, own = (
        Fitted.uncorrected(SimpleNamespace(features=built[center]), rows, centred_per_slice=True)
        for center in ("kinds", "slice")
    )
    assert np.allclose(kinds_, own, atol=1e-4)
