"""Cortex: correspondences without labels, judged by the layers; expression alone, no trained embedding."""

from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from made_tissue import turned
from scipy.spatial import cKDTree

from stscale.alignment import refine

pytestmark = [pytest.mark.real, pytest.mark.slow]


def read(path: Path) -> tuple[np.ndarray, sp.csr_array, np.ndarray]:
    slice_ = ad.read_h5ad(path)
    counts = sp.csr_array(slice_.X, dtype=np.float64)
    size = np.asarray(counts.sum(axis=1)).ravel()
    counts.data *= np.repeat(1e4 / size, np.diff(counts.indptr))
    labels = slice_.obs["domain"].astype(object).fillna("").astype(str).to_numpy()
    return np.asarray(slice_.obsm["spatial"], np.float64), counts.log1p(), labels


def accuracy(best: np.ndarray, source: np.ndarray, target: np.ndarray) -> float:
    known = (source != "") & (best >= 0)
    return float(np.mean(source[known] == target[best[known]]))


@pytest.mark.parametrize(("first", "second", "bar"), [("151673", "151674", 0.885), ("151675", "151676", 0.865)])
def test_beats_centring_by_the_layers(shared_data: Path, first: str, second: str, bar: float) -> None:
    (xa, a, la), (xb, b, lb) = (read(shared_data / "dlpfc_br8100" / f"{s}.h5ad") for s in (first, second))
    both = sp.vstack([a, b]).tocsr()
    spread = np.asarray((both**2).mean(axis=0) - both.mean(axis=0) ** 2).ravel()
    genes = np.argsort(spread)[-1000:]
    a, b, both = a[:, genes], b[:, genes], both[:, genes]
    mean = np.asarray(both.mean(axis=0)).ravel()
    gram = (both.T @ both).toarray() / both.shape[0] - np.outer(mean, mean)
    axes = np.linalg.eigh(gram)[1][:, -20:]
    xa, xb = xa - xa.mean(axis=0), xb - xb.mean(axis=0)
    start = turned(xa, 3.0, (100.0, -100.0))
    found = refine(start, xb, a @ axes, b @ axes)
    best, _ = found.plan.best()
    score = accuracy(best, la, lb)
    assert found.notes == ()
    assert found.coverage >= 0.95
    assert score > bar
    # centring uses the upright slices, which nobody has in advance; the displacement has to find them
    assert score > accuracy(cKDTree(xb).query(xa)[1], la, lb) + 0.015
