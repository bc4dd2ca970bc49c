"""One slice as the user has it, whatever its format: names, tables, coordinates and a stream of entries."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stscale.config import Ingest
from stscale.errors import InputError
from stscale.slices import keys

if TYPE_CHECKING:
    import pandas as pd

    from stscale.slices.regions import Annotation

Piece = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]
"""Entries of the matrix: input row, column, value, three (m,)."""

UNDERSTOOD = (
    "an .h5ad file, an AnnData .zarr folder, a SpatialData .zarr folder with a table, a 10x Visium output "
    "folder (filtered_feature_bc_matrix.h5 or its mtx folder, and spatial/), or a slice store"
)
_SUFFIXES = (".h5ad", ".zarr", ".slice", ".h5")
_MARKERS = ("zarr.json", ".zgroup", ".zattrs")  # what makes a folder a Zarr group, v3 or v2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """A slice that can be ingested. Everything is in the input's order."""

    name: str
    """Name of the slice."""
    path: Path
    """File or folder it is read from."""
    genes: NDArray[np.str_]
    """Gene names, (g,)."""
    names: NDArray[np.str_]
    """Spot names, (n,)."""
    obs: "pd.DataFrame"
    """Columns about spots, n rows."""
    var: "pd.DataFrame"
    """Columns about genes, g rows."""
    coordinates: NDArray[np.float64]
    """Coordinates, (n, 2 or 3), not yet checked."""
    unit: str | None
    """Unit of the coordinates; None when the input does not say."""
    um_per_unit: float | None
    """Micrometres per unit; None when the input does not say."""
    annotation: "Annotation | None" = None
    """What the rows of a SpatialData table annotate; None for none, and where coordinates are missing."""
    stored: int
    """Values that X stores; of a dense matrix all of them."""
    stream: Callable[[int], Iterator[Piece]]
    """What `pieces` calls."""

    @property
    def n(self) -> int:
        """Spots."""
        return len(self.names)

    @property
    def n_bytes(self) -> int:
        """Size on disk, bytes."""
        files = self.path.rglob("*") if self.path.is_dir() else [self.path]
        return sum(file.stat().st_size for file in files if file.is_file())

    def pieces(self, entries: int) -> Iterator[Piece]:
        """Stream the matrix.

        Parameters
        ----------
        entries
            Most entries in a piece; at least 1.

        Yields
        ------
        row, column, value : (m,) int64, int32, float32
            With ``m <= entries``, in no promised order; duplicates and zeros may occur.

        Raises
        ------
        InputError
            If the matrix is damaged.
        """
        if entries < 1:
            raise ValueError(f"entries is {entries}; must be at least 1")
        return self._guarded(entries)

    def _guarded(self, entries: int) -> Iterator[Piece]:
        try:
            yield from self.stream(entries)
        except OSError as error:
            raise InputError(f"{self.path}: X cannot be read ({' '.join(str(error).split())}); is it whole?") from None


def open_source(path: Path, *, name: str | None = None, config: Ingest = Ingest()) -> Source:
    """Recognise a slice and read all of it but its matrix.

    Parameters
    ----------
    path
        An ``.h5ad`` file; an AnnData Zarr folder (v2 or v3; also a table inside a SpatialData folder); a
        SpatialData Zarr folder with one table; a 10x Visium output folder, or its parent with ``outs/``.
    name
        Name of the slice; by default the file's name without its suffix.
    config
        `layer`: the matrix that is read, ``X``, one of AnnData's ``layers``, or ``raw`` (its matrix, with genes of its
        own). `coordinates`: a key of AnnData's ``obsm``, or two or three columns of its ``obs`` with commas between.
        `split`: where it is given, regions of SpatialData may lie on each other (`stscale.slices.split`).

    Raises
    ------
    InputError
        If the path is missing, is in no known format, or lacks something a slice needs.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; give {UNDERSTOOD}")
    label = slice_name(path) if name is None else name
    if not label or "/" in label:
        raise InputError(f"{label!r} cannot name the slice {path}; give a name without slashes")
    if path.is_file():
        if path.suffix.lower() != ".h5ad":
            raise InputError(f"{path} is in no known format; give {UNDERSTOOD}")
        from stscale.slices.sources_anndata import open_h5ad

        return open_h5ad(path, name=label, config=config)
    if any((path / marker).is_file() for marker in _MARKERS):
        from stscale.slices.sources_anndata import open_zarr

        return open_zarr(path, name=label, config=config)
    from stscale.slices.sources_visium import find_visium, open_visium

    folder = find_visium(path)
    if folder is None:
        raise InputError(f"{path} is in no known format; give {UNDERSTOOD}")
    if config.layer != "X":
        raise InputError(f"{path} is a 10x Visium folder, which has no layer {config.layer!r}; leave out --layer")
    if config.coordinates != keys.SPATIAL:
        raise InputError(f"{path} is a 10x Visium folder, which has coordinates of its own; leave out --coordinates")
    return open_visium(folder, name=label)


def slice_name(path: Path) -> str:
    """Name a slice after its file or folder.

    Parameters
    ----------
    path
        Where the slice is. Suffixes that name a format are dropped; ``outs`` gives its parent's name.
    """
    path = Path(path)
    if path.name in ("", "..", "outs"):
        resolved = path.resolve()
        path = resolved.parent if resolved.name == "outs" else resolved
    name = path.name
    while name.lower().endswith(_SUFFIXES):
        name = name[: name.rfind(".")]
    return name
