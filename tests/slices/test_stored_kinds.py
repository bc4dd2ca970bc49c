"""Kinds of tissue in feature stores, on the way back to genes, and for new slices, by Python and command line."""

import json
from itertools import pairwise

import numpy as np
import pytest
from made_slices import crossed, gene_names, off, write_slice

from stscale.analysis.imputation import Loadings
from stscale.config import Preprocess
from stscale.slices import Collection, build_features, kinds
from stscale.slices.projection import Projection

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


def test_the_command_line_says_that_slices_are_moved(tmp_path, stscale_, monkeypatch) -> None:
    monkeypatch.setattr(kinds, "REPEATS", 1)
    parts = enumerate(((0, 5, 900), (3, 8, 700), (0, 8, 1500), (2, 8, 800)))
    made = [sample(tmp_path, *part, seed=i)[0].path for i, part in parts]
    options = ["--method", "smooth", "--domains", "8", "--threads", "1", "--set", "domains.n_init=2"]
    options += ["--set", "preprocess.gain=all", "--set", "preprocess.n_pcs=20"]
    options += [word for name in ("quality", "umap", "markers") for word in ("--set", f"report.{name}=false")]
    code, _, told = stscale_("integrate", *made[:3], "-o", tmp_path / "run", *options)
    assert code == 0
    assert "slices hold kinds of tissue in unequal shares" in told
    code, out, _ = stscale_("map", tmp_path / "run", made[3], "-o", tmp_path / "mapped", "--threads", "1")
    assert code == 0
    assert "it lies beside the run's kinds of tissue" in out
    assert json.loads((tmp_path / "mapped" / "mapped.json").read_text(encoding="utf-8"))["slices"][0]["moved"] is True
