"""The benchmark of slices that are given normalised: how they are made, what comes back, what is shown."""

from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from benchmarks import normalised, tissues
from benchmarks.readme_normalised import normalised as shown


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(tissues, "SPOTS", 150)
    monkeypatch.setattr(tissues, "GENES", 100)


def test_ways_are_those_that_files_come_in() -> None:
    counts = sparse.csr_matrix([[1.0, 0.0, 3.0], [0.0, 0.0, 0.0], [2.0, 2.0, 4.0]])
    rng = np.random.default_rng(0)
    found = {way: normalised.normalised(counts, made, rng).toarray() for way, made in normalised.WAYS.items()}
    np.testing.assert_allclose(np.expm1(found[normalised.GIVEN]).sum(axis=1), [1e4, 0, 1e4], rtol=1e-4)
    np.testing.assert_allclose(np.expm1(found["ln, not divided"]), counts.toarray(), rtol=1e-6)
    amounts = np.exp2(found["log2, sizes of mean 1"]) - 1
    np.testing.assert_allclose(amounts[0], amounts[0, 0] * np.array([1, 0, 3]), rtol=1e-6)
    np.testing.assert_allclose(amounts[[0, 2]].sum(axis=1), [13 / 3, 13 / 3], rtol=1e-6)
    assert found["over a volume"][2, 2] == pytest.approx(2 * found["over a volume"][2, 0])


@pytest.mark.parametrize("way", normalised.WAYS)
def test_all_counts_come_back(way, tmp_path) -> None:
    found = normalised.back("layers-none", way, tmp_path)
    assert found["other"] == 0
    assert found["counts"] > 10_000
    assert found["scales"] == [{"l": "ln", "o": "linear"}.get(way[0], "?") if way[:4] != "log2" else "log2"]


def test_corrected_counts_are_no_counts(tmp_path) -> None:
    given = normalised.corrected("layers-none", tmp_path)
    before = tissues.read(Path(tissues.tissue("layers-none", tmp_path).files[0])).X
    after = tissues.read(Path(given.files[0])).X
    assert 0.85 < after.sum() / before.sum() < 0.95
    assert after.min() >= 0
    (store, *_) = tissues.stored(given.files, None)
    assert (store.is_counts, store.recovered) == (False, None)


def test_the_table_adds_up_what_came_back_otherwise() -> None:
    part = {
        "seeds": [0, 1],
        "back": {"one": {"other": 1, "counts": 1000}, "two": {"other": 2, "counts": 1000}},
        "ari": {way: [0.1, 0.3] for way in ("counts", "brought back", "as they are", "corrected")},
    }
    said = shown({"sets": {"a": part}})
    assert "normalised in 2 ways (one; two)" in said
    assert "| a | 3 of 2 000 | 0.200 (0.100–0.300) |" in said
