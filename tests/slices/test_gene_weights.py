"""What genes weigh in principal components, where spots have many counts and where they have few."""

import numpy as np
import pytest
from made_slices import gene_names, poisson, write_slice

from stscale.config import Preprocess
from stscale.slices import Collection
from stscale.slices.features import build_features
from stscale.slices.gene_weights import FLOOR, RARE, TYPICAL, gene_weights, least_deviation, rare_notes


@pytest.mark.parametrize(
    ("typical", "auto"),
    [(0.01, RARE), (TYPICAL[0], RARE), (sum(TYPICAL) / 2, RARE / 2), (TYPICAL[1], 0.0), (0.8, 0.0)],
)
def test_auto_goes_by_the_median_of_the_genes_that_vary(typical, auto) -> None:
    variance = np.array([0.0, 0.0, 0.0, 0.001, typical, 3.0]) ** 2
    assert least_deviation(variance, "auto") == pytest.approx(auto)
    assert least_deviation(variance, "less") == RARE
    assert least_deviation(variance, "alike") == 0.0


def test_no_gene_varies() -> None:
    assert least_deviation(np.zeros(3), "auto") == RARE
    weights = gene_weights(np.zeros(3), None, 0.0, scale=True, least=RARE, coherence=0.25)
    assert weights.tolist() == [0.0, 0.0, 0.0]
    assert rare_notes(np.zeros(3), RARE) == ()


def test_weights_equal_the_formula() -> None:
    variance = np.array([0.04, 0.0, 0.0001, 4.0])
    averaged = np.array([0.02, 0.0, 0.00002, 0.1])
    noise, power = 0.2, 0.5
    shared = np.clip((averaged / np.maximum(variance, 1e-9) - noise) / (1.0 - noise), FLOOR, 1.0)
    got = gene_weights(variance, averaged, noise, scale=True, least=0.1, coherence=power)
    np.testing.assert_allclose(got, shared**power / [0.2, np.inf, 0.1, 2.0])
    bare = gene_weights(variance, averaged, noise, scale=False, least=0.1, coherence=0.0)
    np.testing.assert_array_equal(bare, 1.0)
    spots = gene_weights(variance, None, noise, scale=True, least=0.0, coherence=power)
    np.testing.assert_allclose(spots, [5.0, 0.0, 100.0, 0.5])


def test_the_note_counts_the_genes_and_says_how_rare_they_are() -> None:
    note = rare_notes(np.array([0.0, 0.05, 0.09, 0.2]) ** 2, RARE)[0]
    assert note.startswith("2 of 4 genes, seen in fewer than one of 200 spots")
    assert rare_notes(np.array([0.2, 0.3]) ** 2, RARE) == ()


@pytest.fixture(scope="module")
def scarce(tmp_path_factory):
    """Two slices with few counts, most genes rare."""
    folder = tmp_path_factory.mktemp("scarce")
    parts = []
    for i, n in enumerate((900, 500)):
        X = poisson(n, 80, seed=i, level=0.01)
        X[:, :3] += 1
        X[:, 40:] = 0
        X[np.arange(3) + 100 * i, 40 + np.arange(3)] = 1  # seen once in a slice
        parts.append(write_slice(folder / f"{i}.zarr", X, gene_names(80), name=f"{i}", chunk=256, seed=i))
    return Collection.build(parts)


def built(folder, collection, **options):
    config = Preprocess(n_hvg=80, n_pcs=5, min_shared_genes=1, gain="slice", **options)
    return build_features(collection, folder / "-".join(map(str, options.values())), config=config, seed=0)


def test_rare_genes_weigh_less_where_counts_are_few(tmp_path, scarce) -> None:
    stores = {rare: built(tmp_path, scarce, rare=rare) for rare in ("auto", "less", "alike")}
    auto, less, alike = (store.pca_inverse() for store in stores.values())
    np.testing.assert_array_equal(auto, less)  # most genes are rare
    lowered = alike > auto * 1.0001
    assert lowered[stores["auto"].columns(gene_names(80)[40:43])].all()
    assert 3 <= np.count_nonzero(lowered) < 80
    np.testing.assert_array_equal(auto[~lowered], alike[~lowered])
    said = [note for note in stores["auto"].notes if "count less than others" in note]
    assert said[0].startswith(f"{np.count_nonzero(lowered)} of {stores['auto'].g} genes")
    assert not any("count less" in note for note in stores["alike"].notes)
    # one count of a rare gene no longer outweighs all else in its spot
    most = {rare: np.abs(store.pca(0, store.n)).max() for rare, store in stores.items()}
    assert most["auto"] < 0.8 * most["alike"]


def test_logarithms_and_genes_that_are_not_scaled_are_left_alone(tmp_path, scarce) -> None:
    for options in ({"transform": "log"}, {"scale_genes": False}):
        first, second = (built(tmp_path, scarce, rare=rare, **options) for rare in ("less", "alike"))
        np.testing.assert_array_equal(first.pca_inverse(), second.pca_inverse())
        assert first.notes == second.notes
