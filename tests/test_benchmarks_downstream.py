"""The benchmark of mapping, trajectory and imputation: what it changes, hides and scores; targets; tables."""

import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from benchmarks.downstream import FLOORS, judged
from benchmarks.downstream_fit import changed, hide
from benchmarks.downstream_score import imputed_scores
from benchmarks.readme_downstream import METHODS
from benchmarks.readme_downstream import downstream as render

N, G = 144, 100


@pytest.fixture
def file(tmp_path: Path) -> str:
    rng = np.random.default_rng(0)
    at = np.stack(np.meshgrid(np.arange(12.0), np.arange(12.0)), axis=-1).reshape(-1, 2)
    level = np.linspace(1, 20, G) * (1 + (at[:, :1] > 5) * (np.arange(G) % 2))
    adata = anndata.AnnData(
        sparse.csr_matrix(rng.poisson(level).astype(np.float32)),
        obs=pd.DataFrame(index=[f"spot{i}" for i in range(N)]),
        var=pd.DataFrame(index=[f"g{i:03d}" for i in range(G)]),
        obsm={"spatial": at},
    )
    adata.write_h5ad(tmp_path / "slice.h5ad")
    return str(tmp_path / "slice.h5ad")


def test_a_slice_is_changed_as_said(file: str, tmp_path: Path) -> None:
    given, out = anndata.read_h5ad(file), str(tmp_path / "out" / "slice.h5ad")
    changed(file, out, "panel", 0.2)
    panel = anndata.read_h5ad(out)
    assert panel.n_vars == 20
    assert (panel.X != given[:, panel.var_names].X).nnz == 0
    for change, alike in (("genes", False), ("programmes", True)):
        changed(file, out, change, 1.0)
        other = anndata.read_h5ad(out)
        assert sorted(other.var_names) == sorted(given.var_names)
        mean, own = (np.asarray(a[:, given.var_names].X.mean(axis=0)).ravel() for a in (given, other))
        assert not np.array_equal(mean, own)
        assert bool(np.corrcoef(mean, own)[0, 1] > 0.5) is alike
    changed(file, out, "places", 1.0)
    moved = anndata.read_h5ad(out)
    assert (moved.X != given.X).nnz == 0
    assert not np.array_equal(moved.obsm["spatial"], given.obsm["spatial"])
    with pytest.raises(ValueError, match="no change 'else'"):
        changed(file, out, "else", 1.0)


def test_hidden_genes_are_gone_and_correlations_are_pearsons(file: str, tmp_path: Path) -> None:
    genes = hide(file, str(tmp_path / "hidden.h5ad"), 6, 0)
    left = anndata.read_h5ad(tmp_path / "hidden.h5ad").var_names
    assert len(left) == G - 6
    assert not set(genes) & set(left)
    given = anndata.read_h5ad(file)
    X = given.X.toarray()
    true = np.log1p(X / X.sum(axis=1, keepdims=True) * 1e4)[:, np.isin(given.var_names, genes)]
    rows = np.random.default_rng(1).permutation(N)
    noise = np.random.default_rng(2).standard_normal(true.shape)
    np.savez(tmp_path / "values.npz", rows=rows, decoder=3 * true[rows] + 1, pca_15=(true + noise)[rows])
    found = imputed_scores(str(tmp_path / "values.npz"), file, genes, 1e4)
    assert found["decoder"]["spots"] == pytest.approx(1.0)
    expected = np.median([np.corrcoef(true[:, k], (true + noise)[:, k])[0, 1] for k in range(6)])
    assert found["pca_15"]["spots"] == pytest.approx(expected)
    assert found["own_neighbours"]["smoothed"] is None
    assert found["own_neighbours"]["spots"] < 1


def results(ari: float, seconds: float, spearman: float, decoder: float) -> dict[str, object]:
    said = {"confidence": 0.5, "verdict": "mapped", "outside": 0.02, "spread": 1.0, "seconds": seconds}
    frozen = {**said, "ari": ari, "agreement": 0.7}
    fold = {"slice": "a", "joint": 0.6, "trained": {"ari": 0.6}, "frozen": frozen, "restat": frozen}
    change = {"slice": "a", "share": 0.5, **frozen}
    scores = {name: {"spots": 0.05, "expressed": 0.1, "smoothed": 0.2} for name in METHODS}
    scores["decoder"] = scores["regression"] = {"spots": decoder, "expressed": 0.1, "smoothed": None}
    found = {
        "environment": {"threads": 1, "date": "2026-01-01"},
        "smoke": False,
        "set": "made",
        "k": 7,
        "seed": 0,
        "map": {
            "folds": [fold, fold],
            "panels": [{**change, "change": "panel"}],
            "others": [{**change, "change": "genes"}],
        },
        "trajectory": {
            "root": "5",
            "seconds": 3.0,
            "spearman": spearman,
            "slices": {"a": spearman},
            "median_time": {"L1": 0.1, "WM": 0.9},
        },
        "impute": {"slice": "a", "genes": 200, "methods": scores},
    }
    return {**found, "targets": judged(found)}


def test_targets_are_judged() -> None:
    assert [part["met"] for part in judged(results(0.56, 12.0, 0.9, 0.06)).values()] == [True] * 5
    assert [part["met"] for part in judged(results(0.54, 21.0, 0.84, 0.04)).values()] == [False] * 5
    assert set(FLOORS) < set(METHODS)


def test_tables_render() -> None:
    text = render(json.loads(json.dumps(results(0.56, 12.0, 0.9, 0.06))))
    assert "| mean | 0.600 | 0.560 |" in text
    assert "| 50% of the genes | 0.560 |" in text
    assert "| gene names permuted |" in text
    assert "| stscale, `--by decoder` | 0.060 | 0.100 |  |" in text
    assert "0.900 (a 0.900)" in text
