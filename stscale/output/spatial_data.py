"""A SpatialData folder per slice: a table of what a run found, and where its elements lie in the common frame."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from stscale.errors import InputError
from stscale.slices.regions import ELEMENTS, TABLES, Annotation

if TYPE_CHECKING:
    import anndata

SYSTEM: Final = "stscale"
"""Name of the common frame among the coordinate systems."""

SPOTS: Final = "spots"
"""The element that is made where a slice did not come from SpatialData."""

REGION_KEY, INSTANCE_KEY = "region", "instance_id"

EXACT: Final = 1e-3
"""Largest distance, in extents of the slice, between its coordinates and an affine image of the elements."""

PLANE = ("x", "y")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """What a run found out about one slice of n spots.

    Attributes
    ----------
    name
        Of the slice.
    table
        AnnData without X, rows in the order of the slice's source.
    xy
        (n, 2 or 3) coordinates as the run read them.
    matrix
        (3, 3) from those to the common frame; None without an alignment.
    """

    name: str
    table: "anndata.AnnData"
    xy: NDArray[np.float64]
    matrix: NDArray[np.float64] | None


def extend(source: Annotation, path: Path, found: Found, *, table: str, overwrite: bool) -> list[str]:
    """Copy a SpatialData folder and add a table, and transformations to `SYSTEM` where there is a common frame.

    The new table annotates what the slice's own annotates. Where elements lie in the frame follows from their
    coordinate system: the run's coordinates must be an affine image of the centroids in it.

    Parameters
    ----------
    source
        What the slice's table annotates.
    path
        The copy; must not exist. Nothing of it is of use after an error.
    found
        Of the run.
    table
        Name of the new table.
    overwrite
        Replace a table of that name, and a coordinate system `SYSTEM`.

    Returns
    -------
    list of str
        Elements that got a transformation.

    Raises
    ------
    InputError
        If the names are taken, or the elements are not where the run saw them.
    """
    import spatialdata
    from spatialdata.models import TableModel

    _check_names(source, table, overwrite=overwrite)
    shutil.copytree(source.root, path)
    for folder in TABLES:
        shutil.rmtree(path / folder / table, ignore_errors=True)
    # without the tables: they may be large, and stay as they are
    data = spatialdata.read_zarr(path, selection=("images", *ELEMENTS))
    if table in data:
        raise InputError(f"{source.root} has an element {table!r}; give the new table another name with --table")
    moved = [] if found.matrix is None else _move(data, source, found, found.matrix, overwrite=overwrite)
    made = found.table.copy()
    made.obs.insert(0, source.region_key, _categories(source.region))
    made.obs.insert(1, source.instance_key, source.instance)
    data.tables[table] = TableModel.parse(
        made, region=source.regions, region_key=source.region_key, instance_key=source.instance_key
    )
    data.write_element(table)
    data.write_consolidated_metadata()
    return moved


def create(path: Path, found: Found, *, table: str) -> list[str]:
    """Write a SpatialData folder of circles, one for each spot, and the table that annotates them.

    Parameters
    ----------
    path
        The folder; must not exist.
    found
        Of the run.
    table
        Name of the table.

    Returns
    -------
    list of str
        Elements that got a transformation to `SYSTEM`.
    """
    import pandas as pd
    import spatialdata
    from spatialdata.models import ShapesModel, TableModel
    from spatialdata.transformations import Identity

    if table == SPOTS:
        raise InputError(f"the spots themselves are called {SPOTS!r}; give the new table another name with --table")
    ways: dict[str, Any] = {"global": Identity()}
    if found.matrix is not None:
        ways[SYSTEM] = _affine(found.matrix)
    index = pd.RangeIndex(len(found.xy))
    circles = ShapesModel.parse(found.xy, geometry=0, radius=_radius(found.xy), index=index, transformations=ways)
    made = found.table.copy()
    made.obs.insert(0, REGION_KEY, _categories(np.full(len(found.xy), SPOTS)))
    made.obs.insert(1, INSTANCE_KEY, np.asarray(index))
    parsed = TableModel.parse(made, region=SPOTS, region_key=REGION_KEY, instance_key=INSTANCE_KEY)
    spatialdata.SpatialData(shapes={SPOTS: circles}, tables={table: parsed}).write(path)
    return [SPOTS] if found.matrix is not None else []


def _check_names(source: Annotation, table: str, *, overwrite: bool) -> None:
    if source.table.split("/")[-1] == table:
        raise InputError(f"{source.root}: the slice itself is in the table {table!r}; give another name with --table")
    if not overwrite and any((source.root / folder / table).exists() for folder in TABLES):
        raise InputError(
            f"{source.root} has a table {table!r} already; --overwrite replaces it in the copy, --table gives another "
            "name"
        )


def _move(data: Any, source: Annotation, found: Found, matrix: NDArray[np.float64], *, overwrite: bool) -> list[str]:
    """Give every element that shares the annotated elements' coordinate system its way to the frame."""
    from spatialdata.transformations import get_transformation, set_transformation

    if SYSTEM in data.coordinate_systems and not overwrite:
        raise InputError(
            f"{source.root} has a coordinate system {SYSTEM!r} already; --overwrite replaces it in the copy"
        )
    system, places = source.placed(data)
    onward = matrix @ _fitted(source, places[:, :2], found)
    moved = []
    for _, name, element in data.gen_spatial_elements():
        ways = get_transformation(element, get_all=True)
        if system in ways:
            whole = onward @ ways[system].to_affine_matrix(PLANE, PLANE)
            set_transformation(element, _affine(whole), SYSTEM, write_to_sdata=data)
            moved.append(name)
    return sorted(moved)


def _fitted(source: Annotation, places: NDArray[np.float64], found: Found) -> NDArray[np.float64]:
    """Find the affine map (3, 3) from the elements' places to the coordinates that the run read."""
    centre, extent = places.mean(axis=0), np.ptp(places, axis=0).max()
    if not extent > 0:
        raise InputError(f"{source.root}: all instances lie in one place")
    ones = np.column_stack([(places - centre) / extent, np.ones(len(places))])
    given = found.xy[:, :2]
    solved, _, rank, _ = np.linalg.lstsq(ones, given, rcond=None)
    off = np.abs(ones @ solved - given).max()
    if rank < 3 or off > EXACT * np.ptp(given, axis=0).max():
        raise InputError(
            f"{source.root}: the coordinates of slice {found.name!r} in the run are not those of the elements that "
            f"its table annotates (off by up to {off:.4g}); no transformation leads from these to the common frame"
        )
    back = np.eye(3)
    back[:2, :2] /= extent
    back[:2, 2] = -centre / extent
    fitted = np.eye(3)
    fitted[:2] = solved.T
    return np.asarray(fitted @ back)


def _affine(matrix: NDArray[np.float64]) -> Any:
    from spatialdata.transformations import Affine

    return Affine(matrix, input_axes=PLANE, output_axes=PLANE)


def _categories(names: NDArray[np.str_]) -> Any:
    import pandas as pd

    return pd.Categorical(names.astype(object))


def _radius(xy: NDArray[np.float64]) -> float:
    """Half the median distance to the nearest other spot; spots in one place do not count."""
    from scipy.spatial import cKDTree

    places = np.unique(xy, axis=0)
    if len(places) < 2:
        return 1.0
    distance, _ = cKDTree(places).query(places, k=2)
    return float(np.median(distance[:, 1]) / 2)
