"""A 10x Visium output folder as a source: matrix (HDF5 or mtx), positions (old and new), scale factors."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stscale.errors import InputError
from stscale.slices import keys
from stscale.slices.mtx import mtx_entries, mtx_stored, open_text
from stscale.slices.sources import Piece, Source
from stscale.slices.sources_anndata import compressed

if TYPE_CHECKING:
    import pandas as pd

SPOT_UM = 55.0  # diameter of a Visium spot, micrometres
EXPRESSION = "Gene Expression"  # the feature type that is used; others are antibodies and the like
MATRIX = "filtered_feature_bc_matrix"
POSITIONS = ("barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres")
_POSITION_FILES = ("tissue_positions.csv", "tissue_positions.parquet", "tissue_positions_list.csv")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Counts:
    """A features × barcodes matrix on disk."""

    path: Path
    barcodes: list[str]
    ids: list[str]
    symbols: list[str]
    types: list[str]

    def stored(self) -> int:
        """Values stored, those outside tissue too."""
        if self.path.is_dir():
            shape = (len(self.ids), len(self.barcodes))
            return mtx_stored(_one(self.path, ("matrix.mtx.gz", "matrix.mtx")), shape=shape)
        import h5py

        with h5py.File(self.path, "r") as file:
            return int(file["matrix/data"].shape[0])

    def entries(self, entries: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]]:
        """Stream barcode, feature, value."""
        if self.path.is_dir():
            yield from mtx_entries(
                _one(self.path, ("matrix.mtx.gz", "matrix.mtx")),
                shape=(len(self.ids), len(self.barcodes)),
                entries=entries,
            )
            return
        import h5py

        with h5py.File(self.path, "r") as file:
            group = file["matrix"]
            yield from compressed(group["indptr"], group["indices"], group["data"], self.path, entries)


def find_visium(path: Path) -> Path | None:
    """Find the folder that holds the filtered matrix.

    Parameters
    ----------
    path
        The output folder or its parent.

    Returns
    -------
    Path or None
        `path` or ``path/outs``; None when neither has a filtered matrix.
    """
    for folder in (path, path / "outs"):
        if (folder / MATRIX).is_dir() or any(folder.glob(f"*{MATRIX}.h5")):
            return folder
    return None


def open_visium(folder: Path, *, name: str) -> Source:
    """Open a Visium output folder: the spots in tissue, the genes, full-resolution pixels as coordinates.

    Parameters
    ----------
    folder
        What `find_visium` gave.
    name
        Name of the slice.

    Raises
    ------
    InputError
        If the matrix, the positions or a barcode's position is missing or cannot be read.
    """
    import pandas as pd

    counts = _open_counts(folder)
    spatial = folder / "spatial"
    positions = _positions(spatial)
    barcodes = pd.Index(counts.barcodes)
    unknown = barcodes[~barcodes.isin(positions.index)]
    if len(unknown):
        raise InputError(
            f"{folder}: {len(unknown)} barcodes have no position (first: {unknown[0]!r}); is spatial/ of the "
            "same sample as the matrix?"
        )
    if not positions.index.is_unique:
        twice = positions.index[positions.index.duplicated()][0]
        raise InputError(f"{folder}: barcode {twice!r} has two positions; repair the positions file")
    placed = positions.loc[barcodes]
    kept = (placed["in_tissue"] == 1).to_numpy()
    used = np.array([kind == EXPRESSION for kind in counts.types], dtype=bool)
    obs = placed.loc[kept, ["in_tissue", "array_row", "array_col"]]
    genes = unique_names(np.array(counts.symbols, dtype=object)[used].tolist())
    ids = np.array(counts.ids, dtype=object)[used]
    # matrix place -> place in the slice, -1 for what is not used
    row_of = np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int64)
    column_of = np.where(used, np.cumsum(used) - 1, -1).astype(np.int32)

    def stream(entries: int) -> Iterator[Piece]:
        for barcode, feature, value in counts.entries(entries):
            if len(feature) and (feature.min() < 0 or feature.max() >= len(column_of)):
                raise InputError(f"{counts.path} is damaged: it has feature numbers beyond its features")
            row, column = row_of[barcode], column_of[feature]
            use = (row >= 0) & (column >= 0)
            yield row[use], column[use], value[use].astype(np.float32, copy=False)

    return Source(
        name=name,
        path=folder,
        genes=np.array(genes, dtype=np.str_),
        names=np.array(barcodes[kept].tolist(), dtype=np.str_),
        obs=obs,
        var=pd.DataFrame({keys.GENE_IDS: ids}, index=pd.Index(genes, dtype=object)),
        coordinates=placed.loc[kept, ["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(np.float64),
        unit="px",
        um_per_unit=_um_per_pixel(spatial / "scalefactors_json.json"),
        stored=counts.stored(),
        stream=stream,
    )


def unique_names(names: list[str]) -> list[str]:
    """Make names unique as `anndata.AnnData.var_names_make_unique` does: ``A, A`` becomes ``A, A-1``.

    Parameters
    ----------
    names
        Names with or without repeats.
    """
    taken = set(names)
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        new = name
        if name in seen:
            number = seen[name]
            while new in taken:
                number += 1
                new = f"{name}-{number}"
            seen[name] = number
            taken.add(new)
        else:
            seen[name] = 0
        unique.append(new)
    return unique


def _open_counts(folder: Path) -> _Counts:
    files = sorted(folder.glob(f"*{MATRIX}.h5"))
    if len(files) > 1:
        raise InputError(
            f"{folder} has {len(files)} filtered matrices ({', '.join(file.name for file in files)}); keep one"
        )
    return _open_h5(files[0]) if files else _open_mtx(folder / MATRIX)


def _open_h5(path: Path) -> _Counts:
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path} cannot be read as HDF5 ({' '.join(str(error).split())}); is it whole?") from None
    with closing(file):
        try:
            group = file["matrix"]
            columns = {
                key: [str(text) for text in group[place].asstr()[:]]
                for key, place in (
                    ("barcodes", "barcodes"),
                    ("ids", "features/id"),
                    ("symbols", "features/name"),
                    ("types", "features/feature_type"),
                )
            }
            shape = tuple(int(size) for size in group["shape"][:])
        except KeyError as missing:
            raise InputError(
                f"{path} is no 10x matrix of Space Ranger ({' '.join(str(missing.args[0]).split())}); give "
                "its filtered_feature_bc_matrix.h5"
            ) from None
    if shape != (len(columns["ids"]), len(columns["barcodes"])):
        raise InputError(f"{path} is damaged: its shape {shape} does not fit its features and barcodes")
    return _Counts(path=path, **columns)


def _open_mtx(folder: Path) -> _Counts:
    _one(folder, ("matrix.mtx.gz", "matrix.mtx"))
    features = _lines(_one(folder, ("features.tsv.gz", "features.tsv", "genes.tsv.gz", "genes.tsv")))
    barcodes = _lines(_one(folder, ("barcodes.tsv.gz", "barcodes.tsv")))
    return _Counts(
        path=folder,
        barcodes=[line[0] for line in barcodes],
        ids=[line[0] for line in features],
        # files with the ids alone, or without the type, come from older versions
        symbols=[line[1] if len(line) > 1 else line[0] for line in features],
        types=[line[2] if len(line) > 2 else EXPRESSION for line in features],
    )


def _one(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder} has none of {', '.join(names)}; give the folder as Space Ranger wrote it")


def _lines(path: Path) -> list[list[str]]:
    with open_text(path) as text:
        return [line.rstrip("\r\n").split("\t") for line in text if line.strip()]


def _positions(spatial: Path) -> "pd.DataFrame":
    """Read the positions, indexed by barcode."""
    import pandas as pd

    path = next((spatial / name for name in _POSITION_FILES if (spatial / name).is_file()), None)
    if path is None:
        raise InputError(f"{spatial} has none of {', '.join(_POSITION_FILES)}; give the folder's spatial/")
    if path.suffix == ".parquet":
        try:
            table = pd.read_parquet(path)
        except ImportError:
            raise InputError(
                f"{path} needs pyarrow to be read; install it (pip install pyarrow) or give tissue_positions.csv"
            ) from None
    else:
        # by its content, not its name: the header came with Space Ranger 2.0
        with path.open(encoding="utf-8") as text:
            header = text.readline().startswith("barcode")
        table = pd.read_csv(path) if header else pd.read_csv(path, header=None)
        if not header and table.shape[1] == len(POSITIONS):
            table.columns = pd.Index(POSITIONS)
    missing = [column for column in POSITIONS if column not in table.columns]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}; expected the columns {', '.join(POSITIONS)}")
    return table.set_index(table["barcode"].astype(str).to_numpy())


def _um_per_pixel(path: Path) -> float | None:
    """Micrometres per full-resolution pixel, when the scale factors tell."""
    if not path.is_file():
        return None
    try:
        factors = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise InputError(f"{path} is not JSON; remove it or give it as Space Ranger wrote it") from None
    if factors.get("microns_per_pixel"):  # Visium HD says it outright; its bins are not 55 µm
        return float(factors["microns_per_pixel"])
    diameter = factors.get("spot_diameter_fullres")
    return SPOT_UM / float(diameter) if diameter else None
