"""New slices on the genes and components of a run: equal where nothing is missing, close where genes are."""

from dataclasses import replace

import numpy as np
import pytest
from made_slices import gene_names, write_slice

from stscale.config import Preprocess
from stscale.errors import InputError
from stscale.slices import Collection, SliceStore, build_features
from stscale.slices.projection import Projection

G, N, HIDDEN = 80, 260, 3
CONFIG = Preprocess(n_hvg=60, n_pcs=HIDDEN, min_shared_genes=20)


def counts(seed: int, n: int = N) -> np.ndarray:
    """Counts of three programmes that all slices share, each slice with gene effects of its own."""
    shared = np.random.default_rng(0)
    base, programmes = shared.gamma(2.0, 4.0, G) + 2, 0.5 * shared.standard_normal((HIDDEN, G))
    rng = np.random.default_rng(seed)
    effect = np.exp(0.2 * rng.standard_normal(G))
    return rng.poisson(base * effect * np.exp(rng.standard_normal((n, HIDDEN)) @ programmes)).astype(np.float32)


def stores(folder, *seeds: int) -> list[SliceStore]:
    return [write_slice(folder / f"s{k}.zarr", counts(k), gene_names(G), name=f"s{k}", seed=k) for k in seeds]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    made = stores(folder, 1, 2)
    features = build_features(Collection.build(made), folder / "features.zarr", config=CONFIG, seed=0)
    return made, features


def project(features, store, folder, config=CONFIG):
    projection = Projection(features, config)
    panel = projection.panel(store)
    return panel, projection.features(store, panel, folder / f"{store.name}-features.zarr")


def test_a_slice_of_the_run_comes_out_as_it_is_there(run, tmp_path) -> None:
    made, features = run
    panel, found = project(features, made[1], tmp_path)
    lo, hi = features.offsets()[1:]
    assert panel.library == 1.0
    assert panel.information == pytest.approx(1.0, abs=1e-6)
    assert np.allclose(found.pca(0, found.n), features.pca(lo, hi), atol=1e-5)
    assert (found.normalised(0, found.n) != features.normalised(lo, hi)).nnz == 0
    assert np.array_equal(found.library(), features.library()[lo:hi])
    assert np.allclose(found.slice_mean()[0], features.slice_mean()[1])
    assert found.genes().tolist() == features.genes().tolist()


def test_poisson_heights_of_a_slice_of_the_run_are_found_again(tmp_path) -> None:
    config = replace(CONFIG, gain="poisson", center="slice")
    rare = [counts(1), np.random.default_rng(9).binomial(counts(2).astype(int), np.where(np.arange(G) % 2, 0.05, 0.4))]
    made = [
        write_slice(tmp_path / f"s{k}.zarr", values.astype(np.float32), gene_names(G), name=f"s{k}", seed=k)
        for k, values in enumerate(rare)
    ]
    features = build_features(Collection.build(made), tmp_path / "features.zarr", config=config, seed=0)
    _, found = project(features, made[1], tmp_path, config)
    assert np.allclose(found.gain()[0], features.gain()[1])
    lo, hi = features.offsets()[1:]
    assert np.allclose(found.pca(0, found.n), features.pca(lo, hi), atol=1e-5)
    odd = np.isin(features.genes(), gene_names(G)[1::2])
    assert np.median(features.gain()[1, odd]) > 1.5 > 1.0 > np.median(features.gain()[1, ~odd])


@pytest.mark.parametrize(("effect", "height"), [(0.05, "slice"), (0.5, "poisson")])
def test_the_height_is_chosen_by_the_slices_and_kept_for_new_ones(tmp_path, effect, height) -> None:
    values = [2 * counts(0) * np.exp(effect * np.random.default_rng(k).standard_normal(G)) for k in range(3)]
    made = [
        write_slice(tmp_path / f"s{k}.zarr", np.random.default_rng(k).poisson(v), gene_names(G), name=f"s{k}", seed=k)
        for k, v in enumerate(values)
    ]
    collection = Collection.build(made)
    features = build_features(collection, tmp_path / "features.zarr", config=CONFIG, seed=0)
    asked = build_features(collection, tmp_path / "asked.zarr", config=replace(CONFIG, gain=height), seed=0)
    assert CONFIG.gain == "auto"
    assert features.height == asked.height == height
    np.testing.assert_array_equal(features.pca(0, features.n), asked.pca(0, asked.n))
    said = [note for note in features.notes if "capture genes unlike" in note]
    assert len(said) == (height == "poisson")
    assert not [note for note in asked.notes if "capture genes unlike" in note]
    # alone, this slice would be like any other
    _, found = project(features, made[1], tmp_path)
    assert found.height == height
    np.testing.assert_allclose(found.gain()[0], features.gain()[1])


def test_the_common_mean_is_taken_where_the_run_took_it(run, tmp_path) -> None:
    made, _ = run
    config = Preprocess(n_hvg=60, n_pcs=HIDDEN, min_shared_genes=20, center="all", scale_genes=False)
    features = build_features(Collection.build(made), tmp_path / "features.zarr", config=config, seed=0)
    _, found = project(features, made[1], tmp_path, config)
    lo, hi = features.offsets()[1:]
    assert np.allclose(found.pca(0, found.n), features.pca(lo, hi), atol=1e-4)


def test_scores_of_a_part_of_the_panel_keep_direction_and_size(run, tmp_path) -> None:
    _, features = run
    lo, hi = features.offsets()[1:]
    whole = features.pca(lo, hi)
    rng = np.random.default_rng(5)
    part = np.sort(rng.permutation(G)[: G // 2])
    X = counts(2)
    own = write_slice(tmp_path / "part.zarr", X[:, part], gene_names(G)[part], name="part", seed=2)
    panel, found = project(features, own, tmp_path)
    assert 0.3 < panel.information < 0.7
    assert 0.3 < panel.library < 0.7
    scores = found.pca(0, found.n)
    slope = [float(np.polyfit(whole[:, k], scores[:, k], 1)[0]) for k in range(HIDDEN)]
    assert np.diag(np.corrcoef(whole.T, scores.T)[:HIDDEN, HIDDEN:]).min() > 0.9
    # filled with their means, missing genes would leave about `information` of the size
    assert np.allclose(slope, 1.0, atol=0.12)
    # values are at the height they have in the run: the library is what the whole panel would have held
    shared = np.flatnonzero(panel.shared)
    apart = found.normalised(0, found.n)[:, shared].mean() - features.normalised(lo, hi)[:, shared].mean()
    assert abs(apart) < 0.03


def test_what_a_new_slice_captures_better_is_brought_to_the_height_of_the_run(run, tmp_path) -> None:
    _, features = run
    store = write_slice(
        tmp_path / "more.zarr", counts(2) * np.where(np.arange(G) % 2, 4, 1), gene_names(G), name="more", seed=2
    )
    _, found = project(features, store, tmp_path)
    odd = np.isin(features.genes(), gene_names(G)[1::2])
    gain = found.gain()[0]
    assert np.median(gain[odd]) < 0.9 < 1.4 < np.median(gain[~odd])
    # four times the counts: twice the root, of a library that grew as well
    assert np.median(gain[~odd]) / np.median(gain[odd]) == pytest.approx(2.0, rel=0.15)
    lo, hi = features.offsets()[1:]
    whole, scores = features.pca(lo, hi), found.pca(0, found.n)
    slope = [float(np.polyfit(whole[:, k], scores[:, k], 1)[0]) for k in range(HIDDEN)]
    assert np.allclose(slope, 1.0, atol=0.2)


def test_spots_without_counts_are_left_out(run, tmp_path) -> None:
    _, features = run
    X = counts(3)
    X[[4, 7]] = 0
    store = write_slice(tmp_path / "holes.zarr", X, gene_names(G), name="holes", seed=3)
    _, found = project(features, store, tmp_path)
    assert found.n == N - 2
    assert sorted(store.input_row()[found.left_out(0)]) == [4, 7]


def test_what_cannot_be_projected_is_refused(run, tmp_path) -> None:
    _, features = run
    X = counts(4)

    def store(name, values, genes):
        return write_slice(tmp_path / f"{name}.zarr", values, genes, name=name, seed=4)

    with pytest.raises(InputError, match=r"'none' has 0 of the 60 genes.*like 'g00.*like 'x"):
        project(features, store("none", X, np.array([f"x{k}" for k in range(G)])), tmp_path)
    few = features.genes()[:19]
    with pytest.raises(InputError, match="19 of the 60 genes that the run reads, at least 20"):
        project(features, store("few", X[:, :19], few), tmp_path)
    with pytest.raises(InputError, match=r"log-normalised values .*trained on counts"):
        project(features, store("log", np.log1p(X * 0.37), gene_names(G)), tmp_path)
    with pytest.raises(InputError, match=r"values that are neither counts nor logarithms .*trained on counts; give"):
        project(features, store("odd", X * 0.37, gene_names(G)), tmp_path)
    as_given = replace(CONFIG, lognormalized=True)
    with pytest.raises(InputError, match=r"holds counts .*trained on log-normalised values"):
        project(features, store("counts", X, gene_names(G)), tmp_path, as_given)
    with pytest.raises(InputError, match="'one' has 1 spot with counts"):
        project(features, store("one", X[:1], gene_names(G)), tmp_path)
    with pytest.raises(InputError, match="none of its 9 spots"):
        project(features, store("empty", X[:9] * 0, gene_names(G)), tmp_path)
    assert not list(tmp_path.glob("*-features.zarr"))


def test_amounts_are_projected_onto_a_run_of_amounts(tmp_path) -> None:
    amounts = [np.maximum(counts(k) - np.float32(0.3), 0) for k in (1, 2)]
    made = [write_slice(tmp_path / f"{k}.zarr", X, gene_names(G), name=f"s{k}", seed=k) for k, X in enumerate(amounts)]
    config = replace(CONFIG, fractional=True)
    features = build_features(Collection.build(made), tmp_path / "features.zarr", config=config, seed=0)
    _, found = project(features, made[1], tmp_path, config)
    lo, hi = features.offsets()[1:3]
    np.testing.assert_allclose(found.pca(0, found.n), features.pca(lo, hi), atol=1e-4)


def test_an_older_feature_store_says_so(run, tmp_path) -> None:
    import shutil

    _, features = run
    old = shutil.copytree(features.path, tmp_path / "features.zarr")
    shutil.rmtree(old / "vocabulary")
    with pytest.raises(InputError, match="earlier version and lacks 'vocabulary'"):
        Projection(type(features).open(old), CONFIG)
