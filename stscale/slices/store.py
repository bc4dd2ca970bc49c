"""One slice on disk: AnnData-Zarr v3, a CSR of the values with its rows along a Hilbert curve."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stscale.errors import InputError
from stscale.slices import keys
from stscale.slices.recover import TITLES, Scale

if TYPE_CHECKING:
    import pandas as pd
    import zarr


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceStore:
    """Read access to a slice store. Holds its path and description only: cheap to pickle and to copy."""

    path: Path
    """The store's folder."""
    name: str
    """Name of the slice."""
    n: int
    """Spots."""
    n_genes: int
    """Genes, all of the input's."""
    dims: int
    """Columns of the coordinates, 2 or 3."""
    tile: int
    """Spots per tile."""
    chunk: int
    """Spots per block, a multiple of `tile`."""
    nnz: int
    """Stored (non-zero) values."""
    max_value: float
    """Largest value, in the unit of X."""
    is_counts: bool
    """Whether all values are integers."""
    lognormalized: bool
    """Whether the values look like logarithms of normalised counts: not integers and small."""
    recovered: Scale | None
    """What its counts were given as, of `recover.TITLES`; None for values as given."""
    unit: str | None
    """Unit of the coordinates, e.g. ``"px"``; None when the input does not say."""
    um_per_unit: float | None
    """Micrometres per coordinate unit; None when the input does not say."""
    shared_positions: int
    """Spots that lie on exactly the place of another one."""
    source: str
    """File or folder name of the input."""
    source_bytes: int
    """Size of the input in bytes."""

    @classmethod
    def open(cls, path: Path) -> "SliceStore":
        """Open a store.

        Parameters
        ----------
        path
            The store's folder.

        Raises
        ------
        InputError
            If `path` is not a complete slice store of this version.
        """
        path = Path(path)
        attrs = _description(path)
        if attrs is None:
            raise InputError(f"{path} is not a slice store; make one with `stscale ingest`")
        if attrs.get("format") != keys.FORMAT:
            raise InputError(
                f"{path} is a slice store of version {attrs.get('format')}, this program reads version "
                f"{keys.FORMAT}; ingest its source again"
            )
        if attrs.get("complete") is not True:
            raise InputError(f"{path} was not written to its end; remove it and ingest its source again")
        try:
            return cls(
                path=path,
                name=attrs["name"],
                n=attrs["n"],
                n_genes=attrs["n_genes"],
                dims=attrs["dims"],
                tile=attrs["tile"],
                chunk=attrs["chunk"],
                nnz=attrs["nnz"],
                max_value=attrs["max"],
                is_counts=attrs["counts"],
                lognormalized=attrs["lognormalized"],
                recovered=attrs.get("recovered"),
                unit=attrs["unit"],
                um_per_unit=attrs["um_per_unit"],
                shared_positions=attrs["shared_positions"],
                source=attrs["source"],
                source_bytes=attrs["source_bytes"],
            )
        except KeyError as missing:
            raise InputError(f"{path} lacks {missing} in its description; ingest its source again") from None

    @property
    def kind(self) -> str:
        """What the values are, for a reader."""
        if self.recovered:
            return f"counts, brought back from {TITLES[self.recovered]}"
        if self.is_counts:
            return "counts"
        return "log-normalised values" if self.lognormalized else "values that are neither counts nor logarithms"

    def counts(self, lo: int, hi: int) -> sparse.csr_matrix:
        """Values of the spots `lo` to `hi`; reads only their entries.

        Parameters
        ----------
        lo, hi
            Half-open range of rows in store order, ``0 <= lo <= hi <= n``.

        Returns
        -------
        (hi - lo, n_genes) csr_matrix, float32
            Column indices sorted, no duplicates, no explicit zeros.

        Raises
        ------
        IndexError
            If the range is not inside the store.
        """
        if not 0 <= lo <= hi <= self.n:
            raise IndexError(f"rows {lo} to {hi} are not inside slice {self.name!r} of {self.n} spots")
        indptr = self._array("X/indptr", lo, hi + 1)
        start, stop = int(indptr[0]), int(indptr[-1])
        index_type = np.int32 if stop - start <= np.iinfo(np.int32).max else np.int64
        return sparse.csr_matrix(
            (
                self._array("X/data", start, stop),
                self._array("X/indices", start, stop),
                (indptr - start).astype(index_type),
            ),
            shape=(hi - lo, self.n_genes),
        )

    def genes(self) -> NDArray[np.str_]:
        """Gene names, (n_genes,), in column order."""
        return self._index("var")

    def names(self) -> NDArray[np.str_]:
        """Spot names, (n,), in store order."""
        return self._index("obs")

    def coordinates(self) -> NDArray[np.float64]:
        """Coordinates as given, (n, 2 or 3), in store order."""
        return self._array(f"obsm/{keys.SPATIAL}", 0, self.n)

    def input_row(self) -> NDArray[np.int64]:
        """Row in the input of each spot, (n,), in store order."""
        return self._array(f"obs/{keys.ROW}", 0, self.n)

    def totals(self) -> NDArray[np.float64]:
        """Sum over all genes of each spot, (n,), in store order."""
        return self._array(f"obs/{keys.TOTAL}", 0, self.n)

    def gene_sums(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Sum and sum of squares over all spots of each gene, two (n_genes,)."""
        return (
            self._array(f"var/{keys.SUM}", 0, self.n_genes),
            self._array(f"var/{keys.SUMSQ}", 0, self.n_genes),
        )

    def obs(self) -> "pd.DataFrame":
        """Read the input's own columns, (n, ·), indexed by spot name, in store order."""
        return self._frame("obs", keys.OBS_RESERVED)

    def obs_columns(self) -> list[str]:
        """Return the names of the input's own columns about spots; nothing is read of them."""
        named = _group(str(self.path), _stamp(self.path))["obs"].attrs["column-order"]
        return [str(name) for name in named if name not in keys.OBS_RESERVED]  # type: ignore[union-attr]  # JSON to zarr

    def obs_column(self, name: str) -> "pd.Series":
        """Read one of the input's own columns, (n,), in store order."""
        import pandas as pd
        from anndata.io import read_elem

        return pd.Series(read_elem(_group(str(self.path), _stamp(self.path))[f"obs/{name}"]))

    def var(self) -> "pd.DataFrame":
        """Read the input's own columns, (n_genes, ·), indexed by gene name."""
        return self._frame("var", keys.VAR_RESERVED)

    def blocks(self) -> list[tuple[int, int]]:
        """Row ranges of `chunk` rows that cover the store; the last one may be shorter."""
        return [(lo, min(lo + self.chunk, self.n)) for lo in range(0, self.n, self.chunk)]

    def _array(self, key: str, lo: int, hi: int) -> NDArray[Any]:
        array = _group(str(self.path), _stamp(self.path))[key]
        return np.asarray(array[lo:hi])  # type: ignore[index]  # zarr types an item as array or group

    def _index(self, frame: str) -> NDArray[np.str_]:
        group = _group(str(self.path), _stamp(self.path))
        column = str(group[frame].attrs["_index"])
        size = self.n if frame == "obs" else self.n_genes
        # zarr gives objects or variable-width strings, by its version: neither casts to fixed width directly
        return np.array(self._array(f"{frame}/{column}", 0, size).tolist(), dtype=np.str_)

    def _frame(self, frame: str, reserved: frozenset[str]) -> "pd.DataFrame":
        from anndata.io import read_elem

        table: pd.DataFrame = read_elem(_group(str(self.path), _stamp(self.path))[frame])
        return table.drop(columns=[column for column in table.columns if column in reserved])


def is_store(path: Path) -> bool:
    """Whether `path` is a complete slice store of this version.

    Parameters
    ----------
    path
        Any path, existing or not.
    """
    attrs = _description(Path(path))
    return attrs is not None and attrs.get("format") == keys.FORMAT and attrs.get("complete") is True


def _description(path: Path) -> dict[str, Any] | None:
    """Read the store's root attribute; None when `path` is not a slice store of any version."""
    try:
        # read directly: `is_store` is asked about every input, most of which zarr need not open
        root = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
        attrs = root["attributes"][keys.ATTRS]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # other files of the project may carry an attribute of this name; only a store names its tile
    return attrs if isinstance(attrs, dict) and "format" in attrs and "tile" in attrs else None


def _stamp(path: Path) -> tuple[int, int]:
    """Tell what changes when a store is replaced, so that no open handle outlives its files."""
    status = (path / "zarr.json").stat()
    return status.st_ino, status.st_mtime_ns


@lru_cache(maxsize=64)
def _group(path: str, stamp: tuple[int, int]) -> "zarr.Group":
    """Per-process cache of open groups: metadata only, no values."""
    import zarr

    return zarr.open_group(path, mode="r", use_consolidated=False)
