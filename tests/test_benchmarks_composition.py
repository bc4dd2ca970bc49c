"""The benchmark of slices that do not hold the same tissue: what is cut, what is measured, what is shown."""

import anndata as ad
import numpy as np
import pytest

from benchmarks import composition, tissues
from benchmarks.data import read_results
from benchmarks.readme_composition import composition as shown


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(tissues, "SPOTS", 200)
    monkeypatch.setattr(tissues, "GENES", 120)


def labels(file):
    adata = ad.read_h5ad(file)
    return np.array([int(name.removeprefix("domain-")) for name in adata.obs["domain"]]), adata


def test_halves_are_upper_and_lower_ones(tmp_path) -> None:
    made = composition.cut("layers-none-halves", tmp_path)
    whole = tissues.tissue("layers-none", tmp_path)
    assert made.k == whole.k == 7
    found = [labels(file)[0] for file in made.files]
    assert [len(part) for part in found] == [124, 123, 124, 123]
    for i, part in enumerate(found):
        assert (1 in part, 7 in part) == ((True, False) if i % 2 == 0 else (False, True))
    assert composition.cut("layers-none-halves", tmp_path) == made


def test_effects_thin_counts_gene_by_gene(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(composition.CUTS, "plain", composition.Cut(of="layers-none", way="whole"))
    monkeypatch.setitem(composition.CUTS, "thin", composition.Cut(of="layers-none", way="whole", effect=0.7))
    plain, thin = (composition.cut(name, tmp_path) for name in ("plain", "thin"))
    rates = []
    for a, b in zip(plain.files, thin.files, strict=True):
        before, after = (labels(file)[1].X.toarray() for file in (a, b))
        assert (after <= before).all()
        rates.append(np.log((after.sum(axis=0) + 1) / (before.sum(axis=0) + 1)))
    rates = np.stack(rates)
    assert 0.5 < rates.std() < 0.8
    # every slice has effects of its own
    assert abs(np.corrcoef(rates)[np.triu_indices(4, 1)]).max() < 0.35


def test_some_of_four_are_cut(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(composition.CUTS, "some", composition.Cut(of="layers-none", way="two"))
    monkeypatch.setitem(composition.CUTS, "first", composition.Cut(of="layers-none", way="one"))
    found = {
        name: [len(labels(file)[0]) for file in composition.cut(name, tmp_path).files] for name in ("some", "first")
    }
    assert found == {"some": [140, 200, 200, 119], "first": [124, 200, 200, 200]}


def test_a_set_is_measured_and_shown(tmp_path, monkeypatch) -> None:
    words = f"composition --work {tmp_path} --out {tmp_path / 'x.json'} --sets layers-none-halves --whole rare-none"
    monkeypatch.setattr("sys.argv", [*words.split(), "--no-map", "--seeds", "0"])
    monkeypatch.setattr(composition, "SEEDED", ("rare-none",))
    monkeypatch.setattr(composition, "SEEDS", 2)
    composition.main()
    found = read_results(tmp_path / "x.json")
    part = found["cuts"]["layers-none-halves"]
    assert set(part["smooth"]) == set(composition.CENTERS)
    assert all(0 < v["ari"][0] <= 1 for v in part["smooth"].values())
    assert part["trained"] == {}
    assert found["whole"]["rare-none"]["gain"] < 0.01
    assert found["whole"]["rare-none"]["moved"] is False
    said = [{"itself": "mapped", "genes": "novel", "programmes": verdict} for verdict in ("novel", "mapped")]
    found["mapped"] = {"a/kinds": {"ari": [0.5, 0.6], "accuracy": [0.7, 0.8], "verdicts": said}}
    text = shown(found)
    assert "| layers-none-halves | smooth |" in text
    low, high = sorted(found["seeds"]["rare-none"])
    assert f"Gain over 2 seeds of the components: rare-none {low:+.3f} to {high:+.3f}." in text
    row = "| a | `kinds` (default) | 0.550 (0.500–0.600) | 0.750 (0.700–0.800) | 0 of 2 | 2 of 2 | 1 of 2 |"
    assert row in text


@pytest.mark.real
def test_parts_of_cortex_lie_on_each_other_by_what_they_share(shared_data, tmp_path) -> None:
    from stscale.config import Preprocess

    own = composition.cut("dlpfc-halves", tmp_path)
    apart = {}
    for center in ("kinds", "slice"):
        given = tissues.prepared(own.name, tmp_path, Preprocess(n_hvg=1500, n_pcs=30, center=center), given=own)
        features = given.features
        assert features.kinds().moved is (center == "kinds")
        z, group = features.pca(0, features.n), features.slice()
        # layer 5 lies in all four parts
        at = np.stack([z[(group == i) & (given.labels == "L5")].mean(axis=0) for i in range(4)])
        apart[center] = float(np.linalg.norm(at - at.mean(axis=0), axis=1).mean())
    assert apart["kinds"] < 0.5 * apart["slice"]
