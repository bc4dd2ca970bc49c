"""transfer-genes.zarr: expression carried over from the slices that a slice was laid on."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stscale.atomic import atomic_path
from stscale.slices import keys

PLAIN: dict[str, Any] = {"shards": None}


def write_genes(path: Path, values: NDArray[np.float32], genes: list[str], integrated: Path) -> None:
    """Write an AnnData of the transferred genes.

    Parameters
    ----------
    path
        Where it goes; replaced whole.
    values
        (n, genes) log-normalised, NaN where nothing was carried over; rows as in `integrated`.
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
    made = anndata.AnnData(X=values, obs=obs, var=pd.DataFrame(index=pd.Index(genes)))
    with atomic_path(path) as part:
        write_elem(zarr.open_group(part, mode="w", zarr_format=3), "/", made, dataset_kwargs=PLAIN)
