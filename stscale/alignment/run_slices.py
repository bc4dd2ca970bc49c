"""The slices of a finished run, as alignment reads them from integrated.zarr."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stscale.alignment.view import SliceView
from stscale.errors import InputError
from stscale.rundir import read_manifest
from stscale.slices import SliceStore, is_store, keys
from stscale.slices.sources import slice_name


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSlices:
    """s slices of a run; their rows in integrated.zarr lie together.

    Attributes
    ----------
    path
        The run folder.
    names
        In the order of the run.
    offsets
        (s + 1,) first row of each slice in integrated.zarr.
    um_per_unit
        Factor from each slice's coordinates to µm; all None unless every source tells its own.
    silent
        Names of the slices whose source does not tell it.
    root
        The open Zarr group.
    """

    path: Path
    names: tuple[str, ...]
    offsets: NDArray[np.int64]
    um_per_unit: tuple[float | None, ...]
    silent: tuple[str, ...]
    root: Any

    @classmethod
    def open(cls, run: Path, *, flat: bool = True) -> RunSlices:
        """Open a finished run.

        Parameters
        ----------
        run
            The run folder.
        flat
            Refuse coordinates in three dimensions.

        Raises
        ------
        InputError
            A folder that holds no finished run, or coordinates in three dimensions.
        """
        import zarr
        from anndata.io import read_elem

        manifest = read_manifest(run)
        if "write" not in manifest["stages"] or not (run / "integrated.zarr").is_dir():
            raise InputError(f"{run} is not finished: it has no integrated.zarr yet; run stscale integrate again")
        root = zarr.open_group(run / "integrated.zarr", mode="r", use_consolidated=False)
        group = read_elem(root[f"obs/{keys.SLICE}"])
        names = tuple(str(name) for name in group.categories)
        dims = root[f"obsm/{keys.SPATIAL}"].shape[1]  # type: ignore[union-attr]  # zarr types an item as array or group
        if flat and dims != 2:
            raise InputError(
                f"the slices of {run} have {dims} coordinates per spot; alignment works in the plane: give slices "
                'with two columns in obsm["spatial"], and their heights with --z or --spacing'
            )
        told = _um_per_unit(run, manifest, names)
        silent = tuple(name for name, factor in zip(names, told, strict=True) if factor is None)
        counts = np.bincount(np.asarray(group.codes), minlength=len(names))
        return cls(
            path=run,
            names=names,
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            um_per_unit=(None,) * len(names) if silent else told,
            silent=silent,
            root=root,
        )

    @property
    def n(self) -> int:
        """Spots of all slices."""
        return int(self.offsets[-1])

    @property
    def unit(self) -> str:
        """Unit of all lengths of the alignment."""
        return "unit of the reference" if self.silent else "µm"

    def given(self, i: int) -> NDArray[np.float64]:
        """Return the coordinates of slice `i` as given, (n_i, 2)."""
        return np.asarray(self.root[f"obsm/{keys.SPATIAL}"][self._rows(i)], np.float64)

    def fit_rows(self, i: int) -> NDArray[np.int64]:
        """Return the rows of integrated.zarr of slice `i`'s spots with an embedding, ascending."""
        return self.offsets[i] + np.flatnonzero(self._embedded(i)[0])

    def view(self, i: int) -> SliceView:
        """Return slice `i` as alignment sees it: its spots with an embedding, lengths in `unit`.

        Raises
        ------
        InputError
            See `SliceView.build`.
        """
        held, z = self._embedded(i)
        return SliceView.build(self.names[i], self.given(i)[held] * (self.um_per_unit[i] or 1.0), z[held])

    def box(self, i: int) -> NDArray[np.float64]:
        """Return the lower and upper corner of slice `i`, (2, 2), in `unit`."""
        xy = self.given(i) * (self.um_per_unit[i] or 1.0)
        return np.stack([xy.min(axis=0), xy.max(axis=0)])

    def stores(self) -> list[Path]:
        """Return the paths of the slice stores, in the order of the run."""
        return _stores(self.path, read_manifest(self.path))

    def _rows(self, i: int) -> slice:
        return slice(int(self.offsets[i]), int(self.offsets[i + 1]))

    def _embedded(self, i: int) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        z = np.asarray(self.root[f"obsm/{keys.EMBEDDING}"][self._rows(i)])
        return np.isfinite(z).all(axis=1), z


def _stores(run: Path, manifest: dict[str, Any]) -> list[Path]:
    """Return the slice stores of a run, in its order, whether they are still there or not."""
    found = []
    for entry in manifest.get("inputs", []):
        path = Path(entry["path"])
        names = entry.get("slices", [slice_name(path)])
        found += [path] if is_store(path) else [run / "slices" / f"{name}.zarr" for name in names]
    return found


def _um_per_unit(run: Path, manifest: dict[str, Any], names: tuple[str, ...]) -> tuple[float | None, ...]:
    """Read what the slice stores said when the features were made; of an older run, ask those that are there."""
    found = manifest["stages"].get("features", {}).get("um_per_unit")
    if found is None:
        opened = [SliceStore.open(path) for path in _stores(run, manifest) if is_store(path)]
        found = {store.name: store.um_per_unit for store in opened}
    return tuple(found.get(name) for name in names)
