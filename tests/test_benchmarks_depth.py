"""The benchmark of spots with few counts: what is taken away, what is measured once, what is shown."""

import anndata as ad
import numpy as np
import pytest

from benchmarks import depth, tissues
from benchmarks.levers import LEVERS, options
from benchmarks.readme_depth import depth as shown


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(tissues, "SPOTS", 150)
    monkeypatch.setattr(tissues, "GENES", 100)


def test_every_slice_keeps_its_share_of_the_counts(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(depth.SETS, "all", ("layers-none", (1.0,)))
    monkeypatch.setitem(depth.SETS, "some", ("layers-none", depth.UNEVEN))
    whole, thin = (depth.thinned(name, tmp_path) for name in ("all", "some"))
    assert (thin.k, thin.name) == (7, "some")
    kept = []
    for a, b in zip(whole.files, thin.files, strict=True):
        before, after = ad.read_h5ad(a), ad.read_h5ad(b)
        assert before.obs_names.equals(after.obs_names)
        assert (after.X.toarray() <= before.X.toarray()).all()
        kept.append(after.X.sum() / before.X.sum())
    np.testing.assert_allclose(kept, depth.UNEVEN, atol=0.02)
    assert depth.thinned("some", tmp_path) == thin


def test_ways_in_which_genes_weigh_the_same_are_measured_once(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(depth.SETS, "some", ("layers-none", (0.9,)))
    made = depth.thinned("some", tmp_path)
    known: dict = {}
    first, features = depth.measured("smooth", made, [0], tmp_path, known)
    assert 250 < features["counts"] < 450
    assert features["spots"] == 600
    assert -0.1 < first["ari"][0] <= 1.0
    again, _ = depth.measured("alike", made, [0], tmp_path, known)
    assert again is first  # counts are many: no gene weighs less
    assert len(known) == 1
    floor, _ = depth.measured("floor", made, [0], tmp_path, known)
    assert floor["ilisi"] != first["ilisi"]
    assert len(known) == 2


def test_the_floor_is_the_levers_own() -> None:
    plain = options(LEVERS[depth.WAYS["floor"][1]])
    assert (plain.preprocess.transform, plain.domains.wider, plain.domains.moves) == ("log", 0.0, 0)
    assert options(LEVERS[depth.WAYS["smooth"][1]]).domains.wider > 0.0


def test_the_table_has_the_deepest_of_a_set_first() -> None:
    ways = {"smooth": "S", "default": "D"}
    part = {
        "of": "a",
        "seeds": [0, 1],
        "ways": {w: {"ari": [0.1, 0.3], "ilisi": [0.2, 0.4], "ceiling": [0.5, 0.7]} for w in ways},
    }
    sets = {"few": part | {"counts": 30.4}, "many": part | {"counts": 1200.0}}
    lines = shown({"sets": sets, "ways": ways}).splitlines()
    assert lines[0] == "Median ARI (min–max) of 2 seeds, K given:"
    assert lines[-2:] == [
        "| many | 1 200 | 0.200 (0.100–0.300) | 0.200 (0.100–0.300) | 0.600 | 0.300 |",
        "| few | 30 | 0.200 (0.100–0.300) | 0.200 (0.100–0.300) | 0.600 | 0.300 |",
    ]
