"""AnnData as a source: `.h5ad`, Zarr v2 and v3, and the table of a SpatialData folder."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stscale.config import Ingest
from stscale.errors import InputError
from stscale.slices import keys
from stscale.slices.regions import TABLES, Annotation, folder_of
from stscale.slices.sources import Piece, Source

if TYPE_CHECKING:
    import pandas as pd

MAX_READ = 1 << 24  # entries: a compressed chunk larger than this is decompressed again for every piece


def open_h5ad(path: Path, *, name: str, config: Ingest = Ingest()) -> Source:
    """Open an ``.h5ad`` file.

    Parameters
    ----------
    path
        The file.
    name
        Name of the slice.
    config
        As in `open_source`.

    Raises
    ------
    InputError
        If it is not an AnnData file, or lacks the layer or the coordinates.
    """
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path} cannot be read as HDF5 ({_line(error)}); is it whole?") from None

    def stream(entries: int) -> Iterator[Piece]:
        # opened anew, so that nothing stays open between the look at the file and the reading of it
        with h5py.File(path, "r") as again:
            yield from _entries(again[matrix], path, entries)

    with closing(file):
        matrix, var = _matrix(file, config.layer, path)
        return _source(file, path, name, stream, config, matrix=matrix, var=var)


def annotation(path: Path) -> Annotation | None:
    """Return what the rows of a SpatialData table annotate; None for what is no such table.

    Parameters
    ----------
    path
        A SpatialData folder with one table, or a table inside one.

    Raises
    ------
    InputError
        As `open_zarr`.
    """
    group, root, table = _opened(path)
    return Annotation.read(group, _frame(group, "obs", path), root, table) if table else None


def open_zarr(path: Path, *, name: str, config: Ingest = Ingest()) -> Source:
    """Open an AnnData or SpatialData folder.

    Parameters
    ----------
    path
        A Zarr v2 or v3 group: AnnData itself, or SpatialData with exactly one table.
    name
        Name of the slice.
    config
        As in `open_source`.

    Raises
    ------
    InputError
        If it is neither, has no table or several, or the table lacks the layer or coordinates: ``obsm["spatial"]``, or
        elements that it annotates; or if it annotates regions that lie on each other.
    """
    group, root, table = _opened(path)
    matrix, var = _matrix(group, config.layer, path)

    def stream(entries: int) -> Iterator[Piece]:
        yield from _entries(group[matrix], path, entries)

    return _source(group, path, name, stream, config, matrix=matrix, var=var, root=root, table=table)


def _opened(path: Path) -> tuple[Any, Path, str]:
    """Open an AnnData folder, or the table of a SpatialData folder; return that folder and the table inside it too."""
    import zarr

    try:
        group: Any = zarr.open_group(str(path), mode="r", use_consolidated=False)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} cannot be read as Zarr ({_line(error)}); is it whole?") from None
    inside = _table(group, path)
    if inside:
        return group[inside], path, inside
    return group, *folder_of(path)


def _table(group: Any, path: Path) -> str:
    """Path inside `group` of its only table; empty when the group is AnnData itself."""
    if group.attrs.get("encoding-type") == "anndata" or {"obs", "var"} <= set(group):
        return ""
    tables = [f"{folder}/{key}" for folder in TABLES if folder in group for key in group[folder]]
    # the very old layout has the AnnData right at `table`, whose members are no tables
    tables = [key for key in tables if "obs" in group[key]]
    if not tables:
        raise InputError(
            f"{path} is Zarr but neither AnnData (obs, var, X) nor SpatialData with a table; found {_listed(group)}"
        )
    if len(tables) > 1:
        raise InputError(
            f"{path} has {len(tables)} tables; give one of them: {', '.join(str(path / key) for key in sorted(tables))}"
        )
    return tables[0]


def _matrix(group: Any, layer: str, path: Path) -> tuple[str, str]:
    """Places of the matrix and of its genes in an AnnData group."""
    layers = list(group["layers"]) if "layers" in group else []
    found = [*(["X"] if "X" in group else []), *layers, *(["raw"] if "raw" in group else [])]
    if layer not in found:
        raise InputError(
            f"{path} has no {'X' if layer == 'X' else f'layer {layer!r}'}; say with --layer where "
            f"the counts are; found: {_listed(found)}"
        )
    if layer == "X" or layer in layers:
        return "X" if layer == "X" else f"layers/{layer}", "var"
    return "raw/X", "raw/var"


def _source(
    group: Any,
    path: Path,
    name: str,
    stream: Any,
    config: Ingest,
    *,
    matrix: str,
    var: str,
    root: Path | None = None,
    table: str = "",
) -> Source:
    shape = _shape(group[matrix], path)
    obs, genes = _frame(group, "obs", path), _frame(group, var, path)
    if shape != (len(obs), len(genes)):
        raise InputError(
            f"{path} is damaged: {matrix} is {shape[0]} × {shape[1]}, obs has {len(obs)} and {var} {len(genes)} rows"
        )
    told = Annotation.read(group, obs, root, table) if root is not None and table else None
    coordinates = _spatial(group, path, told, obs, config.coordinates)
    whole = coordinates.ndim == 2 and len(coordinates) == len(obs) and bool(np.isfinite(coordinates).all())
    if told is not None and whole and config.split is None:
        told.check_apart(coordinates)
    return Source(
        name=name,
        path=path,
        genes=_text(genes),
        names=_text(obs),
        obs=obs,
        var=genes,
        coordinates=coordinates,
        unit=None,
        um_per_unit=None,
        annotation=told if whole else None,
        stored=shape[0] * shape[1] if _kind(group[matrix]) == "dense" else int(group[matrix]["data"].shape[0]),
        stream=stream,
    )


def _frame(group: Any, key: str, path: Path) -> "pd.DataFrame":
    import pandas as pd
    from anndata.io import read_elem

    frame = read_elem(group[key]) if key in group else None
    if not isinstance(frame, pd.DataFrame):
        raise InputError(f"{path} has no table {key}; read it with a current anndata and write it again")
    return frame


def _text(frame: "pd.DataFrame") -> NDArray[np.str_]:
    return np.array([str(label) for label in frame.index], dtype=np.str_)


def _spatial(group: Any, path: Path, told: Annotation | None, obs: "pd.DataFrame", where: str) -> NDArray[np.float64]:
    from anndata.io import read_elem

    if "," in where:
        columns = [name.strip() for name in where.split(",")]
        missing = [name for name in columns if name not in obs]
        if missing or len(columns) not in (2, 3):
            raise InputError(
                f"{path}: expected coordinates in two or three columns of obs, got {where!r}; "
                f"found: {_listed(obs.columns)}"
            )
        value, place = obs[columns].to_numpy(), f"obs, columns {where!r},"
    else:
        found = list(group["obsm"]) if "obsm" in group else []
        if where not in found:
            if told is not None and where == keys.SPATIAL:
                return told.centroids()
            raise InputError(
                f'{path} has no obsm["{where}"] (found: {_listed(found)}); put the coordinates there: '
                f'adata.obsm["{where}"], (n, 2) or (n, 3); or say with --coordinates which key of obsm, or '
                "which columns of obs as x,y, hold them"
            )
        value, place = read_elem(group["obsm"][where]), f'obsm["{where}"]'
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{path}: {place} does not hold numbers; give (n, 2) or (n, 3)") from None


def _kind(X: Any) -> str:
    """``csr``, ``csc`` or ``dense``; empty when it is something else."""
    if hasattr(X, "dtype"):
        return "dense" if len(X.shape) == 2 and np.dtype(X.dtype).kind in "biuf" else ""
    kind = str(X.attrs.get("encoding-type", X.attrs.get("h5sparse_format", "")))
    return {"csr_matrix": "csr", "csc_matrix": "csc"}.get(kind, kind if kind in ("csr", "csc") else "")


def _shape(X: Any, path: Path) -> tuple[int, int]:
    kind = _kind(X)
    if not kind:
        raise InputError(f"{path}: X is neither CSR, CSC nor a dense matrix of numbers; write it as CSR")
    shape = X.shape if kind == "dense" else X.attrs.get("shape", X.attrs.get("h5sparse_shape"))
    return int(shape[0]), int(shape[1])


def _entries(X: Any, path: Path, entries: int) -> Iterator[Piece]:
    kind = _kind(X)
    if kind == "dense":
        yield from _dense(X, entries)
        return
    for major, minor, value in compressed(X["indptr"], X["indices"], X["data"], path, entries):
        row, column = (major, minor) if kind == "csr" else (minor, major)
        yield row, column.astype(np.int32, copy=False), value


def compressed(
    indptr: Any, indices: Any, data: Any, path: Path, entries: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
    """Stream the entries of a compressed sparse matrix on disk.

    Parameters
    ----------
    indptr, indices, data
        HDF5 data sets or Zarr arrays; only `indptr` is read whole.
    path
        For messages.
    entries
        Most entries in a piece.

    Yields
    ------
    major, minor, value : (m,) int64, int64, float32
        In stored order.

    Raises
    ------
    InputError
        If the three arrays do not fit each other.
    """
    starts = np.asarray(indptr[:], dtype=np.int64)
    stored = int(data.shape[0])
    if len(starts) == 0 or starts[0] != 0 or starts[-1] != stored or (np.diff(starts) < 0).any():
        raise InputError(f"{path} is damaged: the row pointers of X do not fit its {stored} values")
    if int(indices.shape[0]) != stored:
        raise InputError(f"{path} is damaged: X has {stored} values but {indices.shape[0]} indices")
    step = _step(data, entries)
    for lo in range(0, stored, step):
        hi = min(lo + step, stored)
        values, minors = _float32(data[lo:hi]), np.asarray(indices[lo:hi], dtype=np.int64)
        for a in range(lo, hi, entries):
            b = min(a + entries, hi)
            first = int(np.searchsorted(starts, a, side="right")) - 1
            last = int(np.searchsorted(starts, b, side="left"))
            edges = np.clip(starts[first : last + 1], a, b)
            yield (
                np.repeat(np.arange(first, last), edges[1:] - edges[:-1]),
                minors[a - lo : b - lo],
                values[a - lo : b - lo],
            )


def _step(data: Any, entries: int) -> int:
    """Entries read at once: whole storage chunks, because part of one costs as much as all of it."""
    chunk = int(data.chunks[0]) if data.chunks else 1
    if chunk > entries:
        return min(chunk, max(MAX_READ, entries))
    return entries // chunk * chunk


def _dense(X: Any, entries: int) -> Iterator[Piece]:
    n, columns = X.shape
    if columns == 0:
        return
    height = max(1, entries // columns)
    if X.chunks and height < X.chunks[0] <= MAX_READ // columns:
        height = int(X.chunks[0])  # whole storage chunks, as in `_step`
    for lo in range(0, n, height):
        block = np.asarray(X[lo : lo + height])
        row, column = np.nonzero(block)
        value = _float32(block[row, column])
        # the rows read at once may hold more than a piece
        for a in range(0, len(row), entries):
            b = a + entries
            yield row[a:b].astype(np.int64) + lo, column[a:b].astype(np.int32), value[a:b]


def _float32(values: Any) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused by name
        return np.asarray(values).astype(np.float32)


def _listed(found: Any) -> str:
    return ", ".join(sorted(str(key) for key in found)) or "nothing"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
