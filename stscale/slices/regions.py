"""What the rows of a SpatialData table annotate: elements of the folder around it, and where their instances lie."""

from dataclasses import dataclass
from itertools import combinations
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

    def check_apart(self, xy: NDArray[np.float64]) -> None:
        """Refuse regions that lie on each other: they are slices of their own, with coordinates of their own.

        Parameters
        ----------
        xy
            (n, 2 or 3) coordinates of the rows.

        Raises
        ------
        InputError
            Naming the regions and how to part them.
        """
        boxes = {}
        for name in self.regions:
            own = xy[self.region == name][:, :2]
            boxes[name] = own.min(axis=0), own.max(axis=0)
        for a, b in combinations(boxes, 2):
            (low_a, high_a), (low_b, high_b) = boxes[a], boxes[b]
            shared = np.prod(np.maximum(np.minimum(high_a, high_b) - np.maximum(low_a, low_b), 0))
            if shared > SAME_PLACE * min(np.prod(high_a - low_a), np.prod(high_b - low_b)):
                raise InputError(
                    f"{self.root / self.table} annotates {len(boxes)} regions, and {a!r} and {b!r} lie on each other: "
                    f"they are slices of their own; write one table for each: "
                    f'table[table.obs["{self.region_key}"] == "{a}"].copy().write_zarr("{a}.zarr")'
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
