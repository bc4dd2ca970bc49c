"""The benchmark of cortex that no choice was made on: what is read, measured and shown."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from benchmarks import unseen
from benchmarks.readme_unseen import unseen as shown


@pytest.fixture
def data(tmp_path):
    """Four small slices as the archive has them: columns of theirs, text labels, unequal genes."""
    rng = np.random.default_rng(0)
    for i, name in enumerate(unseen.SLICES):
        place = np.stack(np.divmod(np.arange(196), 14), axis=1).astype(float)
        layer = (place[:, 0] // 2).astype(int)
        mean = 1 + 4 * (np.arange(80)[None] % 7 == layer[:, None])
        made = anndata.AnnData(
            sparse.csr_matrix(rng.poisson(mean).astype(np.int64)), obsm={"spatial": place, "rgb": place}
        )
        made.obs_names = [f"{name}_{k}" for k in range(196)]
        made.obs[unseen.LABEL] = pd.Categorical([f"L{d}" for d in layer])
        made.var_names = [f"g{k}" for k in range(80)]
        made[:, i:].write_h5ad(tmp_path / f"{name}.h5ad")
    return tmp_path


def test_slices_together_and_alone(data, tmp_path) -> None:
    together, *alone = unseen.sets(data, tmp_path / "work")
    assert [len(t.files) for t in (together, *alone)] == [4, 1, 1, 1, 1]
    assert [t.name for t in alone] == [f"unseen-{name}" for name in unseen.SLICES]
    own = anndata.read_h5ad(alone[2].files[0])
    assert own.shape == (196, 78)
    assert list(own.obs) == ["domain"]
    found, said = unseen.measured(together, "smooth", [0, 1], tmp_path / "work")
    assert (said["spots"], said["genes"]) == (784, 77)
    assert min(found["ari"]) > 0.6
    assert found["ceiling"] > 0.8
    lone, _ = unseen.measured(alone[0], "floor", [0], tmp_path / "work")
    assert lone["ceiling"] is None
    assert lone["ilisi"] == [None]


def test_the_table_names_slices() -> None:
    way = {"ari": [0.5, 0.7], "ceiling": 0.8}
    part = {"spots": 11380, "genes": 5000, "counts": 4298.2, "seeds": [0, 1], "ways": dict.fromkeys(unseen.WAYS, way)}
    lone = {**part, "ways": {w: {**way, "ceiling": None} for w in unseen.WAYS}}
    said = shown({"sets": {"unseen": part, "unseen-151673": lone}})
    assert "| four together | 11 380 | 5 000 | 4 298 | 0.600 (0.500–0.700) |" in said
    assert said.splitlines()[-1].startswith("| 151673 |")
    assert said.endswith("| – |")
