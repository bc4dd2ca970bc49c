"""What the rows of a SpatialData table annotate: elements of the folder around it, and where their instances lie."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from stscale.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

TABLES: Final = ("tables", "table")
"""Folders of tables; the second is the older."""

ELEMENTS: Final = ("shapes", "labels", "points")
"""Folders of elements that rows can annotate."""

GLOBAL: Final = "global"
"""The coordinate system that SpatialData gives to an element unless told otherwise."""

SAME_PLACE: Final = 0.5
"""Regions whose boxes overlap by more than this share of the smaller one are slices of their own."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Annotation:
    """Rows of a table and their instances; n rows.

    Attributes
    ----------
    root
        The SpatialData folder.
    table
        Path of the table inside it.
    names
        (n,) of the rows.
    region_key, instance_key
        Columns of obs.
    region, instance
        (n,) element that each row annotates, and the instance in it.
    """

    root: Path
    table: str
    names: NDArray[np.str_]
    region_key: str
    instance_key: str
    region: NDArray[np.str_]
    instance: NDArray[Any]

    @classmethod
    def read(cls, group: Any, obs: "pd.DataFrame", root: Path, table: str) -> "Annotation | None":
        """Read what a table says of itself; None when it annotates nothing.

        Parameters
        ----------
        group
            The open Zarr group of the table.
        obs
            Its obs.
        root, table
            Where it lies.
        """
        told = group.attrs
        region_key, instance_key = told.get("region_key"), told.get("instance_key")
        if not region_key or not instance_key or region_key not in obs or instance_key not in obs:
            return None
        return cls(
            root=root,
            table=table,
            names=np.array([str(label) for label in obs.index], dtype=np.str_),
            region_key=str(region_key),
            instance_key=str(instance_key),
            region=np.asarray(obs[region_key].astype(str), dtype=np.str_),
            instance=np.asarray(obs[instance_key]),
        )

    @property
    def regions(self) -> list[str]:
        """Names of the elements, sorted."""
        return [str(name) for name in np.unique(self.region)]

    def check_apart(self, xy: NDArray[np.float64], rows: NDArray[np.int64] | None = None) -> None:
        """Refuse regions that lie on each other: they are slices of their own, with coordinates of their own.

        Parameters
        ----------
        xy
            (n, 2 or 3) coordinates of the rows.
        rows
            Those that are one slice; default: all.

        Raises
        ------
        InputError
            Naming the regions and how to part them.
        """
        region, places = (self.region, xy) if rows is None else (self.region[rows], xy[rows])
        pair = on_each_other(places, region)
        if pair is not None:
            raise InputError(
                f"{self.root / self.table} annotates {len(np.unique(region))} regions, and {pair[0]!r} and {pair[1]!r} "
                f"lie on each other: they are slices of their own; say so with --split {self.region_key}"
            )

    def placed(self, data: Any) -> tuple[str, NDArray[np.float64]]:
        """Find where the instances lie.

        Parameters
        ----------
        data
            A `spatialdata.SpatialData` that holds the annotated elements.

        Returns
        -------
        system, xy
            A coordinate system that all annotated elements know, `GLOBAL` where they know it, and the centroid of
            each row's instance in it, (n, 2 or 3).

        Raises
        ------
        InputError
            If an element or an instance is missing, or the elements know no common system.
        """
        import spatialdata
        from spatialdata.transformations import get_transformation

        missing = [name for name in self.regions if name not in data]
        if missing:
            raise InputError(f"{self.root}: its table {self.table} annotates {missing[0]!r}, which is not there")
        known = [set(get_transformation(data[name], get_all=True)) for name in self.regions]
        common = sorted(set.intersection(*known), key=lambda name: (name != GLOBAL, name))
        if not common:
            raise InputError(f"{self.root}: {', '.join(self.regions)} share no coordinate system; give them one")
        xy = np.empty((len(self.region), 0))
        for name in self.regions:
            mine = self.region == name
            found = spatialdata.get_centroids(data[name], coordinate_system=common[0]).compute()
            row = found.index.get_indexer(self.instance[mine])
            if (row < 0).any():
                lost = self.instance[mine][row < 0][0]
                raise InputError(f"{self.root}: {name!r} has no instance {lost!r}, which {self.table} annotates")
            at = found[[axis for axis in ("x", "y", "z") if axis in found]].to_numpy(dtype=np.float64)
            if not xy.shape[1]:
                xy = np.empty((len(self.region), at.shape[1]))
            xy[mine] = at[row]
        return common[0], xy

    def centroids(self) -> NDArray[np.float64]:
        """Return the centroids of the rows' instances, (n, 2 or 3), as `placed`, reading the elements from disk."""
        library(f'{self.root / self.table} has no obsm["spatial"]; reading the places of what it annotates')
        import spatialdata

        kinds = tuple(k for k in ELEMENTS if any((self.root / k / name).is_dir() for name in self.regions))
        return self.placed(spatialdata.read_zarr(self.root, selection=kinds))[1]


def on_each_other(xy: NDArray[np.float64], group: NDArray[Any]) -> tuple[str, str] | None:
    """Find two groups of spots whose boxes overlap by more than `SAME_PLACE` of the smaller one.

    Parameters
    ----------
    xy
        (n, 2 or 3) coordinates.
    group
        (n,) of each spot.

    Returns
    -------
    tuple of str or None
        The first such pair; None where all lie beside each other.
    """
    names, code = np.unique(group, return_inverse=True)
    order = np.argsort(code, kind="stable")
    first = np.searchsorted(code[order], np.arange(len(names)))
    places = xy[order, :2]
    low, high = np.minimum.reduceat(places, first), np.maximum.reduceat(places, first)
    area = np.prod(high - low, axis=1)
    for i in range(len(names) - 1):
        gap = np.minimum(high[i], high[i + 1 :]) - np.maximum(low[i], low[i + 1 :])
        over = np.prod(np.maximum(gap, 0), axis=1) > SAME_PLACE * np.minimum(area[i], area[i + 1 :])
        if over.any():
            return str(names[i]), str(names[i + 1 + int(np.argmax(over))])
    return None


def folder_of(path: Path) -> tuple[Path, str]:
    """Return the SpatialData folder that holds a table, and the table's path inside; the path and "" for no table."""
    path = path.absolute()
    if path.parent.name in TABLES and any((path.parents[1] / m).is_file() for m in ("zarr.json", ".zgroup")):
        return path.parents[1], f"{path.parent.name}/{path.name}"
    return path, ""


def library(purpose: str) -> None:
    """Make sure that spatialdata can be imported.

    Parameters
    ----------
    purpose
        What needs it.

    Raises
    ------
    InputError
        Saying what to install.
    """
    try:
        import spatialdata  # noqa: F401  # only whether it is there
    except ImportError as error:
        raise InputError(
            f"{purpose} needs the package spatialdata ({error}); pip install 'stscale[spatialdata]'"
        ) from None
