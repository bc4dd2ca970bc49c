"""What is added to an integrated.zarr that exists already; readable at any moment, killed or not."""

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stscale.atomic import atomic_path

ROWS = 8192
ORDER = "column-order"


def add_obsm(path: Path, name: str, shape: tuple[int, int], blocks: Iterable[tuple[int, NDArray[np.float64]]]) -> None:
    """Add or replace an array of obsm, float64; it appears whole.

    Parameters
    ----------
    path
        An AnnData Zarr v3 without consolidated metadata. What is being written lies beside it, not in it.
    name
        Key of obsm.
    shape
        (n, columns).
    blocks
        (first row, rows) in any order; they cover all n.
    """
    import zarr

    with atomic_path(path / "obsm" / name, holder_in=path.parent) as part:
        array = zarr.create_array(
            part,
            shape=shape,
            chunks=(min(ROWS, shape[0]), shape[1]),
            dtype="float64",
            zarr_format=3,
            attributes={"encoding-type": "array", "encoding-version": "0.2.0"},
        )
        for lo, rows in blocks:
            array[lo : lo + len(rows)] = rows


def drop_obsm(path: Path, name: str) -> None:
    """Remove an array of obsm, if it is there, in one step."""
    _drop(path / "obsm" / name, path.parent)


def add_obs(path: Path, columns: Mapping[str, Any]) -> None:
    """Add or replace columns of obs; the others are not touched.

    Readers take the columns that the frame's attribute names: a column is named last, when its values are in place,
    and is unnamed before it is replaced.

    Parameters
    ----------
    path
        As in `add_obsm`.
    columns
        Name → values (n,): an array or a `pandas.Categorical`.
    """
    import zarr
    from anndata.io import write_elem

    frame = path / "obs"
    with tempfile.TemporaryDirectory(prefix=".obs.", suffix=".part", dir=path.parent) as holder:
        root = zarr.open_group(holder, mode="w", zarr_format=3)
        for name, values in columns.items():
            write_elem(root, name, values, dataset_kwargs={"shards": None})
        kept = [c for c in obs_columns(path) if c not in columns]
        _set_order(frame, kept, path.parent)
        for name in columns:
            _drop(frame / name, path.parent)
            (Path(holder) / name).replace(frame / name)
        _set_order(frame, [*kept, *columns], path.parent)


def drop_obs(path: Path, columns: Sequence[str]) -> None:
    """Remove columns of obs, those that are there; unnamed first, so that no reader misses one."""
    frame = path / "obs"
    order = obs_columns(path)
    if set(order) & set(columns):
        _set_order(frame, [c for c in order if c not in columns], path.parent)
    for name in columns:
        _drop(frame / name, path.parent)


def obs_columns(path: Path) -> list[str]:
    """Return the names of the columns of obs, in their order."""
    described = json.loads((path / "obs" / "zarr.json").read_text(encoding="utf-8"))
    return list(described["attributes"][ORDER])


def _set_order(frame: Path, order: list[str], beside: Path) -> None:
    described = json.loads((frame / "zarr.json").read_text(encoding="utf-8"))
    described["attributes"][ORDER] = order
    with atomic_path(frame / "zarr.json", holder_in=beside) as part:
        part.write_text(json.dumps(described, indent=2), encoding="utf-8")


def _drop(folder: Path, beside: Path) -> None:
    if not folder.exists():
        return
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", suffix=".part", dir=beside) as holder:
        folder.replace(Path(holder) / folder.name)
