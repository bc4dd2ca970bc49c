"""integrated.zarr in the hands of scanpy, squidpy and CELLxGENE, as their users would open it."""

import re
import warnings
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import stscale
from stscale.config import Run
from stscale.errors import InputError
from stscale.slices.features import FeatureStore
from tests.test_pipeline import SIZES, SMALL, tissue

N = sum(SIZES.values())
ORDER = ("b", "c", "a")
MISSING = 7  # genes that slice b lacks
CONFIG = Run().replace({**SMALL, "output": {"counts": True}})


def given(name: str) -> anndata.AnnData:
    """Return a slice whose barcodes come again in every other, as those of a Visium do; slice c has an empty spot."""
    adata = tissue(name, SIZES[name])
    adata.obs_names = [f"AAAC-{k}" for k in range(adata.n_obs)]
    adata.obs["batch"] = name  # text, not categories
    if name == "b":
        adata = adata[:, MISSING:].copy()
    if name == "c":
        adata.X = adata.X.multiply((np.arange(adata.n_obs) != 4)[:, None]).tocsr()
    return adata


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three slices, with counts."""
    folder = tmp_path_factory.mktemp("given")
    for name in ORDER:
        given(name).write_h5ad(folder / f"{name}.h5ad")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stscale.report.write_report", lambda run: (run / "report.html").write_text("", encoding="utf-8"))
        patch.setattr("stscale.output.counts.ENTRIES", 700)  # several pieces a slice
        out = folder / "run"
        stscale.integrate([folder / f"{name}.h5ad" for name in ORDER], out=out, config=CONFIG)
    return out


@pytest.fixture
def adata(run: Path) -> anndata.AnnData:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # names that are not unique would warn here
        warnings.filterwarnings("ignore", ".*[Zz]arr.*")
        return anndata.read_zarr(run / "integrated.zarr")


def test_counts_are_those_of_the_slices_in_their_order(adata: anndata.AnnData, run: Path) -> None:
    whole = [given(name) for name in ORDER]
    assert adata.var_names.tolist() == sorted(whole[0].var_names)  # what all slices have
    assert isinstance(adata.X, sparse.csr_matrix)
    assert (adata.X.dtype, adata.X.has_canonical_format) == (np.float32, True)
    expected = sparse.vstack([w[:, adata.var_names].X for w in whole])
    assert (expected != adata.X).nnz == 0
    features = FeatureStore.open(run / "features.zarr")
    assert adata.var_names[adata.var["stscale_used"]].tolist() == sorted(features.genes())
    assert not list(run.glob(".*.part"))


def test_counts_of_a_union_have_nothing_where_a_slice_lacks_the_gene(tmp_path: Path) -> None:
    for name in ("b", "a"):
        given(name).write_h5ad(tmp_path / f"{name}.h5ad")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stscale.report.write_report", lambda run: (run / "report.html").write_text("", encoding="utf-8"))
        union = CONFIG.replace({"preprocess": {"genes": "union"}})
        stscale.integrate([tmp_path / "b.h5ad", tmp_path / "a.h5ad"], out=tmp_path / "run", config=union)
    found = anndata.read_zarr(tmp_path / "run" / "integrated.zarr")
    lacked = found.var_names[~found.var_names.isin(given("b").var_names)]
    assert len(lacked) == MISSING
    b, a = (found[found.obs["stscale_slice"] == name] for name in ("b", "a"))
    assert b[:, lacked].X.nnz == 0
    assert (a.X != given("a")[:, found.var_names].X).nnz == 0


def test_logarithms_are_no_counts() -> None:
    with pytest.raises(InputError, match=r"output\.counts = true, and log-normalised input has no counts"):
        CONFIG.replace({"preprocess": {"lognormalized": True}}).check_sections()


def test_names_that_come_again_name_their_slice(adata: anndata.AnnData) -> None:
    assert adata.obs_names.is_unique
    assert adata.obs_names[0] == f"AAAC-0-{ORDER[0]}"
    assert adata.obs["stscale_name"].tolist() == [name for s in ORDER for name in given(s).obs_names]


def test_without_the_option_there_is_no_x(run: Path, tmp_path: Path) -> None:
    slices = [run.parent / f"{name}.h5ad" for name in ORDER[:1]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stscale.report.write_report", lambda run: (run / "report.html").write_text("", encoding="utf-8"))
        found = stscale.integrate(slices, out=tmp_path / "run", config=Run().replace(SMALL)).adata()
    assert (found.X, found.n_vars) == (None, 0)
    assert found.obs_names.tolist() == given(ORDER[0]).obs_names.tolist()  # one slice: its names as they are
    assert "stscale_name" not in found.obs


def test_scanpy_goes_on_from_the_embedding(adata: anndata.AnnData) -> None:
    import scanpy as sc

    kept = adata[adata.obs["stscale_domain"].notna()].copy()
    assert kept.n_obs == N - 1
    sc.pp.neighbors(kept, n_neighbors=10, use_rep="X_stscale", random_state=0)
    assert kept.obsp["connectivities"].shape == (N - 1, N - 1)
    sc.pp.normalize_total(kept, target_sum=1e4)
    sc.pp.log1p(kept)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own frames
        sc.tl.rank_genes_groups(kept, "stscale_domain", method="wilcoxon")
    markers = sc.get.rank_genes_groups_df(kept, group="0")
    assert len(markers) == kept.n_vars
    assert markers["pvals_adj"].min() < 1e-3


def test_joined_with_counts_of_the_slices(run: Path, adata: anndata.AnnData) -> None:
    # what a user of a run without counts does: the slices, one after the other, and the run's columns beside them
    joined = anndata.concat({name: given(name) for name in ORDER}, index_unique="-", join="inner")
    assert joined.obs_names.tolist() == adata.obs_names.tolist()
    joined.obs["stscale_domain"], joined.obsm["X_stscale"] = adata.obs["stscale_domain"], adata.obsm["X_stscale"]
    assert (joined[:, adata.var_names].X != adata.X).nnz == 0


def test_squidpy_finds_neighbourhoods(adata: anndata.AnnData) -> None:
    squidpy = pytest.importorskip("squidpy", reason="squidpy is not installed (make test-scverse)")
    kept = adata[adata.obs["stscale_domain"].notna()].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it and what it imports announce their own plans
        squidpy.gr.spatial_neighbors(kept, library_key="stscale_slice", n_neighs=6, coord_type="generic")
        squidpy.gr.nhood_enrichment(kept, cluster_key="stscale_domain", n_perms=20, seed=0, show_progress_bar=False)
    graph = kept.obsp["spatial_connectivities"].tocoo()
    slices = kept.obs["stscale_slice"].to_numpy()
    assert (slices[graph.row] == slices[graph.col]).all()
    score = kept.uns["stscale_domain_nhood_enrichment"]["zscore"]
    assert (np.diag(score) > 2).all()  # domains hang together


def cellxgene_faults(adata: anndata.AnnData) -> list[str]:
    """Check what the CELLxGENE schema (7) asks of a file whatever its ontology terms: its general rules."""
    faults = []
    for axis, index in (("obs", adata.obs.index), ("var", adata.var.index)):
        if not index.is_unique or index.isna().any() or (index == "").any():
            faults.append(f"{axis}: the index is not unique")
        frame = getattr(adata, axis)
        if not frame.columns.is_unique or any(str(c).startswith("__") for c in frame.columns):
            faults.append(f"{axis}: columns repeat, or start with __")
        for name, column in frame.items():
            if isinstance(column.dtype, pd.CategoricalDtype):
                if not all(isinstance(c, str) for c in column.cat.categories) and len(column.cat.categories):
                    faults.append(f"{axis}[{name}]: categories are not text")
            elif column.dtype == object and not all(isinstance(v, str) for v in column):
                faults.append(f"{axis}[{name}]: mixed types")
    faults += [f for key, value in adata.obsm.items() for f in _embedding_faults(key, value, adata.n_obs)]
    if not any(key.startswith("X_") or key == "spatial" for key in adata.obsm):
        faults.append("obsm: no embedding")
    faults += [f"uns[{key}]: empty" for key, value in adata.uns.items() if _empty(value)]
    if adata.X is None or not sparse.issparse(adata.X) or adata.X.dtype != np.float32 or adata.X.format != "csr":
        faults.append("X: not float32 CSR")
    elif not (adata.X.data == np.round(adata.X.data)).all() or (adata.X.data < 0).any():
        faults.append("X: no raw counts")
    if adata.raw is not None and adata.raw.shape[0] != adata.n_obs:
        faults.append("raw: other spots")
    return faults


def _embedding_faults(key: str, value: Any, n: int) -> list[str]:
    faults = []
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", key):
        faults.append(f"obsm[{key}]: the name has other characters")
    if not isinstance(value, np.ndarray) or value.ndim != 2 or len(value) != n or value.shape[1] < 2:
        return [*faults, f"obsm[{key}]: not ({n}, 2 or more)"]
    if value.dtype.kind not in "fiu" or np.isinf(value).any() or np.isnan(value).all():
        faults.append(f"obsm[{key}]: not numbers, infinite, or all NaN")
    if key == "spatial" and np.isnan(value).any():
        faults.append("obsm[spatial]: NaN")
    return faults


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, dict | list | str | np.ndarray) and len(value) == 0)


def test_the_rules_of_cellxgene_hold(adata: anndata.AnnData) -> None:
    assert cellxgene_faults(adata) == []
    assert adata.obs["batch"].dtype == "category"
    assert adata.obs["stscale_domain"].isna().sum() == 1  # the spot without counts, and no other


def test_the_rules_see_what_is_wrong(adata: anndata.AnnData) -> None:
    adata.obsm["spatial"][0] = np.nan
    adata.obsm["1 x"] = np.full((N, 2), np.inf)
    adata.uns["none"] = {}
    adata.obs["mixed"] = pd.Series([1, "a"] * (N // 2), index=adata.obs_names, dtype=object)
    adata.obs["__own"] = 1
    adata.X = (adata.X * 0.5).tocsr()
    adata.var_names = ["x"] * adata.n_vars
    found = " ".join(cellxgene_faults(adata))
    for fault in ("obsm[spatial]: NaN", "other characters", "infinite", "uns[none]", "mixed types", "start with __"):
        assert fault in found
    assert "X: no raw counts" in found
    assert "var: the index is not unique" in found
