"""What a run found, written back beside the slices as SpatialData; the run and the slices are only read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stscale import __version__
from stscale.alignment import Alignment, RunSlices, read_alignment
from stscale.atomic import atomic_path
from stscale.errors import InputError
from stscale.output.spatial_data import SYSTEM, Found, create, extend
from stscale.rundir import read_manifest
from stscale.slices import is_store, keys
from stscale.slices.regions import Annotation, library
from stscale.telling import Observer

FORMAT = "stscale-export-1"
FILE = "export.json"
OWN = "stscale_"
"""Start of the obs columns that a run adds."""


class Exporting:
    """Writes one SpatialData folder per slice of a run.

    Parameters
    ----------
    run
        The run folder.
    table
        Name of the new table.
    observer
        Called with each event.

    Raises
    ------
    InputError
        If spatialdata is not installed, the run is not finished, or the name is none.
    """

    def __init__(self, run: Path, table: str, observer: Observer) -> None:
        library("an export to SpatialData")
        if not table.replace("_", "").replace("-", "").replace(".", "").isalnum() or table.startswith(("_", ".")):
            raise InputError(f"{table!r} cannot name a table; take letters, digits, '_', '-' and '.'")
        self.run, self.table, self.observer = run, table, observer
        self.slices = RunSlices.open(run, flat=False)
        self.alignment: Alignment | None = read_alignment(run)

    def go(self, sources: list[Path], out: Path, *, overwrite: bool) -> None:
        """Write the folder `out`, which appears whole or not at all.

        Parameters
        ----------
        sources
            Where the inputs are now, in the order of the run; empty: where the run found them.
        out
            The folder.
        overwrite
            Replace an earlier export, and tables and a coordinate system of the same name in the copies.

        Raises
        ------
        InputError
            If a slice is missing or is not the one of the run, a name is taken, or `out` holds something else.
        """
        inputs = read_manifest(self.run)["inputs"]
        given = sources or [Path(entry["path"]) for entry in inputs]
        _check_out(out, [self.run, *given], overwrite=overwrite)
        if len(given) != len(inputs):
            names = ", ".join(Path(entry["path"]).name for entry in inputs)
            raise InputError(
                f"{len(given)} sources for {len(inputs)} inputs ({names}); give one for each, in this order"
            )
        paths: list[Path] = []
        told: list[Annotation | None] = []
        for path, entry in zip(given, inputs, strict=True):
            held = entry.get("slices")
            # what was split is written by slice, its elements stay where they are
            told += [self._source(len(told), path)] if held is None else [None] * len(held)
            paths += [path] * (1 if held is None else len(held))
        with atomic_path(out) as part:
            part.mkdir()
            done = []
            for i, annotation in enumerate(told):
                name = self.slices.names[i]
                self.observer({"event": "stage", "stage": f"export {name}", "state": "start"})
                path, found = part / f"{name}.zarr", self._found(i)
                if annotation is None:
                    moved = create(path, found, table=self.table)
                else:
                    moved = extend(annotation, path, found, table=self.table, overwrite=overwrite)
                done.append({"name": name, "folder": path.name, "source": str(paths[i]), "transformed": moved})
            self._tell(part / FILE, done)

    def _source(self, i: int, path: Path) -> Annotation | None:
        """Return what the table of slice `i` annotates, None where it did not come from SpatialData."""
        from stscale.slices.sources_anndata import annotation

        if not path.exists():
            raise InputError(f"{path} is not there any more; say where the slices are with --source, in their order")
        if path.is_file() or is_store(path) or not any((path / m).is_file() for m in ("zarr.json", ".zgroup")):
            return None
        found = annotation(path)
        if found is not None and not np.array_equal(found.names, self._names(i)):
            raise InputError(
                f"the {len(found.names)} rows of {path} are not the {len(self._names(i))} of slice "
                f"{self.slices.names[i]!r}, by their names; give the slices that were integrated, in their order"
            )
        return found

    def _found(self, i: int) -> Found:
        import anndata
        import pandas as pd
        from anndata.io import read_elem

        root, rows = self.slices.root, slice(int(self.slices.offsets[i]), int(self.slices.offsets[i + 1]))
        frame = root["obs"]
        columns = [c for c in frame.attrs["column-order"] if c.startswith(OWN) and c != keys.NAME]
        names = self._names(i).astype(object)
        obs = pd.DataFrame({c: read_elem(frame[c])[rows] for c in columns}, index=pd.Index(names))
        kept = [k for k in (keys.EMBEDDING, keys.SPATIAL, *self._frames()) if k in root["obsm"]]
        table = anndata.AnnData(obs=obs, obsm={k: np.asarray(root[f"obsm/{k}"][rows]) for k in kept})
        table.uns["stscale"] = {"version": __version__, "run": str(self.run)}
        matrix: NDArray[np.float64] | None = None if self.alignment is None else self.alignment.matrix(i)
        return Found(name=self.slices.names[i], table=table, xy=table.obsm[keys.SPATIAL], matrix=matrix)

    def _frames(self) -> tuple[str, ...]:
        return () if self.alignment is None else (keys.SPATIAL_ALIGNED, keys.SPATIAL_3D)

    def _names(self, i: int) -> NDArray[np.str_]:
        frame = self.slices.root["obs"]
        lo, hi = self.slices.offsets[i : i + 2].tolist()
        # where slices share names, the index names the slice too
        held = frame[keys.NAME if keys.NAME in frame else frame.attrs["_index"]]
        return np.asarray(held[lo:hi]).astype(object).astype(np.str_)

    def _tell(self, path: Path, done: list[dict[str, Any]]) -> None:
        warped = self.alignment is not None and any(p.warp is not None for p in self.alignment.pairs)
        notes = []
        if self.alignment is None:
            notes.append("the run is not aligned: there is no common frame")
        if warped:
            notes.append(
                'transformations are affine: the warp of a pair is only in obsm["spatial_aligned"] of the table'
            )
        told = {
            "format": FORMAT,
            "stscale": __version__,
            "run": read_manifest(self.run)["stages"]["write"]["digest"],
            "table": self.table,
            "coordinate_system": None if self.alignment is None else SYSTEM,
            "unit": None if self.alignment is None else self.alignment.unit,
            "slices": done,
            "notes": notes,
        }
        path.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        for note in notes:
            self.observer({"event": "note", "text": note})


def _check_out(out: Path, lost: list[Path], *, overwrite: bool) -> None:
    """Refuse a folder that would be lost."""
    if out.is_file():
        raise InputError(f"{out} is a file; give a folder with -o")
    here = out.resolve()
    if any(here == p.resolve() or here in p.resolve().parents for p in lost):
        raise InputError(f"{out} holds the run or a slice, which it would replace; give another folder with -o")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not (out / FILE).is_file():
        raise InputError(f"{out} is not empty and holds no earlier export; give another folder with -o")
    if not overwrite:
        raise InputError(f"{out} holds an earlier export; --overwrite replaces it, or give another folder with -o")
