"""transfer-genes.zarr: expression carried over from the slices that a slice was laid on."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stscale.atomic import atomic_path
from stscale.slices import keys

ROWS = 8192
PLAIN: dict[str, Any] = {"shards": None}


def write_genes(
    path: Path, blocks: Iterable[tuple[NDArray[np.int64], NDArray[np.float32]]], genes: list[str], integrated: Path
) -> None:
    """Write an AnnData of the transferred genes, a slice at a time.

    Parameters
    ----------
    path
        Where it goes; replaced whole.
    blocks
        Ascending rows of `integrated` (m,) and their log-normalised values (m, genes); other rows are NaN.
    genes
        Their names.
    integrated
        integrated.zarr, for the names of the spots and their slices.
    """
    import anndata
    import zarr
    from anndata.io import read_elem, write_elem

    root = zarr.open_group(integrated, mode="r")
    index: Any = root[f"obs/{root['obs'].attrs['_index']}"]
    slices = read_elem(root[f"obs/{keys.SLICE}"])
    obs = pd.DataFrame({keys.SLICE: slices}, index=pd.Index(np.asarray(index[:]).astype(object)))
    made = anndata.AnnData(obs=obs, var=pd.DataFrame(index=pd.Index(genes)))
    n, g = made.shape
    with atomic_path(path) as part:
        out = zarr.open_group(part, mode="w", zarr_format=3)
        write_elem(out, "/", made, dataset_kwargs=PLAIN)
        X = out.create_array(  # its name in AnnData
            "X", shape=(n, g), chunks=(min(ROWS, n), g), dtype="float32", fill_value=np.nan
        )
        X.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        for rows, values in blocks:
            lo, hi = int(rows[0]), int(rows[-1]) + 1
            block = np.full((hi - lo, g), np.nan, np.float32)
            block[rows - lo] = values
            X[lo:hi] = block
