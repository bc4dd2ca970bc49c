"""Real tissue, short trainings: order, unequal genes, empty spots, log-normalised input and a quality floor."""

import anndata
import numpy as np
import pytest

from stscale import integrate
from stscale.config import Run
from stscale.errors import InputError
from stscale.evaluation import evaluate
from stscale.slices import ingest

pytestmark = [pytest.mark.real, pytest.mark.figures]
SHORT = Run().replace(
    {
        "run": {"threads": 1, "device": "cpu"},
        "train": {"steps": 60},
        "domains": {"k": 7, "n_init": 3},
        "report": {"umap": False, "markers": False},
    }
)
TINY = SHORT.replace(
    {
        "train": {"steps": 5},
        "preprocess": {"n_hvg": 500, "n_pcs": 20},
        "spotscape": {"hidden": 32, "latent": 16},
        "domains": {"k": 3, "n_init": 1, "n_components": 8},
        "report": {"umap": False, "markers": False},
    }
)


def check_rows(adata, paths) -> None:
    given = [anndata.read_h5ad(p) for p in paths]
    assert adata.obs_names.tolist() == [n for a in given for n in a.obs_names]
    np.testing.assert_array_equal(adata.obsm["spatial"], np.concatenate([a.obsm["spatial"] for a in given]))
    assert adata.obs["stscale_slice"].tolist() == [
        p.stem for p, a in zip(paths, given, strict=True) for _ in a.obs_names
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_cortex_beats_chance_by_far(shared_data, tmp_path):
    paths = [shared_data / "dlpfc_br8100" / f"{name}.h5ad" for name in ("151676", "151673")]
    adata = integrate(paths, out=tmp_path / "run", config=SHORT).adata()
    check_rows(adata, paths)
    assert evaluate(tmp_path / "run", "domain")["labels"]["ari"] >= 0.35


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_unequal_genes_in_another_order(shared_data, tmp_path):
    paths = [shared_data / "breast_st" / f"layer{k}.h5ad" for k in (3, 1, 4, 2)]
    result = integrate(paths, out=tmp_path / "run", config=TINY)
    assert result.slices == ("layer3", "layer1", "layer4", "layer2")
    check_rows(result.adata(), paths)


def test_logarithms_of_cells_become_counts(shared_data, tmp_path):
    for path in sorted((shared_data / "seqfish_embryo2").glob("*.h5ad")):
        store = ingest(path, tmp_path / f"{path.stem}.zarr")
        assert (store.is_counts, store.recovered) == (True, "log2")
        found, given = (
            store.counts(0, 50).toarray(),
            anndata.read_h5ad(path).X.tocsr()[store.input_row()[:50]].toarray(),
        )
        # one count of a cell is worth the same in all genes
        worth = (np.exp2(given.astype(float)) - 1) / np.maximum(found, 1)
        least = np.where(found > 0, worth, np.inf).min(axis=1, keepdims=True)
        np.testing.assert_allclose(np.where(found > 0, worth, least), np.broadcast_to(least, worth.shape), rtol=0.02)
        assert (found > 5).any()
        assert ((found > 0) == (given > 0)).all()


def test_lognormalised_tissue_as_it_is_needs_the_word(shared_data, tmp_path):
    paths = sorted((shared_data / "seqfish_embryo2").glob("*.h5ad"))
    with pytest.raises(InputError, match="--lognormalized"):
        integrate(paths, out=tmp_path / "run", config=TINY.replace({"ingest": {"recover": False}}))


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_a_section_with_empty_spots(shared_data, tmp_path):
    paths = [shared_data / "her2st" / f"{name}.h5ad" for name in ("A1", "A3")]
    result = integrate(paths, out=tmp_path / "run", config=TINY)
    adata = result.adata()
    check_rows(adata, paths)
    empty = np.concatenate([np.asarray(anndata.read_h5ad(p).X.sum(axis=1)).ravel() == 0 for p in paths])
    assert empty.any()
    # a spot whose few counts lie on no used gene takes no part either
    missing = adata.obs["stscale_domain"].isna().to_numpy()
    assert missing[empty].all()
    assert result.left_out == missing.sum()
    np.testing.assert_array_equal(np.isnan(adata.obsm["X_stscale"]).any(axis=1), missing)
