"""integrated.zarr: the embedding and the domains, rows in the input's order."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stscale.atomic import atomic_path
from stscale.memory import let_go
from stscale.output.counts import write_counts
from stscale.slices import keys
from stscale.slices.collection import Collection
from stscale.slices.features import FeatureStore

ROWS = 8192
PLAIN = {"shards": None}  # said outright, because anndata warns that its own default is about to change


def output_rows(collection: Collection, features: FeatureStore) -> NDArray[np.int64]:
    """Return the row of `integrated.zarr` of each fit spot, (n_fit,) int64: slices as given, input order inside."""
    group, row = features.slice(), features.row()
    out = np.empty(features.n, dtype=np.int64)
    for i, store in enumerate(collection.stores):
        mine = group == i
        out[mine] = collection.offsets[i] + store.input_row()[row[mine]]
    return out


def write_integrated(
    path: Path,
    collection: Collection,
    features: FeatureStore,
    latents: NDArray[np.float32],
    labels: NDArray[np.int32],
    uns: dict[str, Any],
    *,
    counts: bool = False,
) -> None:
    """Write the AnnData that any scverse tool opens.

    Parameters
    ----------
    path
        Where `integrated.zarr` goes; replaced whole.
    collection
        The slices as they were given.
    features
        Tells which spots took part in the fit.
    latents
        (n_fit, d) float32, in the order of the feature store; a spot left out gets NaN.
    labels
        (n_fit,) domains; a spot left out gets a missing value.
    uns
        Goes to `uns["stscale"]`.
    counts
        Write the raw counts of the collection's genes as X; else there is no X, and no gene in var.
    """
    names = [str(k) for k in range(int(labels.max()) + 1)]
    used = np.isin(collection.genes, features.genes()) if counts else None
    write_rows(path, collection, output_rows(collection, features), latents, labels, names, uns, counts_of=used)


def write_rows(
    path: Path,
    collection: Collection,
    place: NDArray[np.int64],
    latents: NDArray[np.float32],
    labels: NDArray[np.int32],
    names: list[str],
    uns: dict[str, Any],
    *,
    columns: dict[str, NDArray[np.float64]] | None = None,
    counts_of: NDArray[np.bool_] | None = None,
) -> None:
    """Write the same AnnData of spots wherever they were embedded.

    Parameters
    ----------
    path, collection, latents, labels, uns
        As in `write_integrated`; latents and labels have the order of `place`.
    place
        (m,) int64, row of the output of each embedded spot.
    names
        Of the domains, by their number.
    columns
        Further columns of obs, (m,) each; NaN for a spot left out.
    counts_of
        (g,) which genes of the collection the run reads; given where X holds the counts of all of them.
    """
    import zarr
    from anndata.io import write_elem

    domain = np.full(collection.n, -1, dtype=np.int32)
    domain[place] = labels
    obs = _obs(collection)
    obs[keys.SLICE] = _categorical(
        np.repeat(np.arange(len(collection.stores)), np.diff(collection.offsets)),
        [s.name for s in collection.stores],
    )
    obs[keys.DOMAIN] = _categorical(domain, names)
    for name, values in (columns or {}).items():
        whole = np.full(collection.n, np.nan)
        whole[place] = values
        obs[name] = whole
    with atomic_path(path) as part:
        root = zarr.open_group(part, mode="w", zarr_format=3)
        root.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        write_elem(root, "obs", obs, dataset_kwargs=PLAIN)
        write_elem(root, "var", _var(collection, counts_of), dataset_kwargs=PLAIN)
        if counts_of is not None:
            write_counts(root, collection, path.parent)
        for name in ("layers", "varm", "obsp", "varp", "obsm"):
            write_elem(root, name, {})
        write_elem(root, "uns", {"stscale": uns}, dataset_kwargs=PLAIN)
        write_elem(root, f"obsm/{keys.SPATIAL}", _coordinates(collection), dataset_kwargs=PLAIN)
        _write_latents(root, latents, place, collection.n)


def _write_latents(root: Any, latents: NDArray[np.float32], place: NDArray[np.int64], n: int) -> None:
    d = latents.shape[1]
    fit_row = np.full(n, -1, dtype=np.int64)
    fit_row[place] = np.arange(len(place))
    array = root.create_array(f"obsm/{keys.EMBEDDING}", shape=(n, d), chunks=(min(ROWS, n), d), dtype="float32")
    array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    for lo in range(0, n, ROWS):
        rows = fit_row[lo : lo + ROWS]
        block = np.full((len(rows), d), np.nan, dtype=np.float32)
        block[rows >= 0] = latents[rows[rows >= 0]]
        array[lo : lo + len(rows)] = block
        let_go(latents)


def _coordinates(collection: Collection) -> NDArray[np.float64]:
    parts = []
    for store in collection.stores:
        xy = store.coordinates()
        given = np.empty_like(xy)
        given[store.input_row()] = xy
        parts.append(given)
    return np.concatenate(parts)


def _obs(collection: Collection) -> pd.DataFrame:
    frames = []
    for store in collection.stores:
        frame = store.obs()
        back = np.empty(store.n, dtype=np.int64)
        back[store.input_row()] = np.arange(store.n)
        frames.append(frame.iloc[back])
    columns = list(dict.fromkeys(c for f in frames for c in f.columns))
    index = pd.Index(np.concatenate([np.asarray(f.index, dtype=object) for f in frames]))
    obs = pd.DataFrame({c: _column([f.get(c) for f in frames], frames) for c in columns}, index=index)
    if not index.is_unique:
        # barcodes come again in every slice; readers expect names of their own, as anndata.concat would make them
        obs[keys.NAME] = index.to_numpy()
        slices = np.repeat(np.array([s.name for s in collection.stores], dtype=object), np.diff(collection.offsets))
        obs.index = index + "-" + slices
    return obs


def _var(collection: Collection, used: NDArray[np.bool_] | None) -> pd.DataFrame:
    if used is None:
        return pd.DataFrame(index=pd.Index([], dtype=str))
    return pd.DataFrame({keys.USED: used}, index=pd.Index(collection.genes.astype(object)))


def _categorical(codes: NDArray[Any], names: list[Any]) -> pd.Categorical:
    return pd.Categorical.from_codes(codes, names)  # type: ignore[call-overload]  # its stubs refuse int64 arrays


def _column(parts: list[pd.Series | None], frames: list[pd.DataFrame]) -> Any:
    """Join one column over slices; a slice without it gets missing values, texts become categories."""
    given = [p for p in parts if p is not None]
    as_text = any(isinstance(p.dtype, pd.CategoricalDtype) or p.dtype == object for p in given)
    if as_text:
        levels = list(dict.fromkeys(v for p in given for v in _levels(p)))
        code = {v: i for i, v in enumerate(levels)}
        codes = [
            np.full(len(f), -1) if p is None else np.array([code.get(v, -1) for v in p.astype(object)], dtype=np.int64)
            for p, f in zip(parts, frames, strict=True)
        ]
        return _categorical(np.concatenate(codes), levels)
    if len(given) < len(parts):
        parts = [pd.Series(np.full(len(f), np.nan)) if p is None else p for p, f in zip(parts, frames, strict=True)]
    return np.concatenate([np.asarray(p) for p in parts if p is not None])


def _levels(column: pd.Series) -> list[Any]:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return list(column.cat.categories)
    return [v for v in pd.unique(column) if not pd.isna(v)]
