"""The feature store: what training reads. Spots with counts, slice by slice in tile order, on the chosen genes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stscale.atomic import atomic_path
from stscale.compute import Scheduler
from stscale.config import Preprocess
from stscale.errors import InputError
from stscale.slices.collection import Collection
from stscale.slices.feature_writer import ATTRS, FORMAT, FeatureWriter, read_csr
from stscale.slices.kinds import Kinds, find_kinds
from stscale.slices.pca import Gram
from stscale.slices.preprocess import feature_rows, rank_collection, slice_capture
from stscale.slices.store import _group, _stamp
from stscale.slices.stream import collection_blocks, map_blocks
from stscale.slices.surroundings import Surroundings
from stscale.slices.transform import Transform

if TYPE_CHECKING:
    import pandas as pd

EVERY = 4
"""Spots for one average of a spot with its surroundings; fewer where the spots are few."""

MANY = 4
"""Averages for each principal axis, at least."""

SAMPLE = 2048
"""Spots, and up to twice as many, that tell how much of the variance along an axis is noise."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureStore:
    """Read access to a feature store. Holds its path and description only: cheap to pickle and to copy."""

    path: Path
    """The store's folder."""
    n: int
    """Spots, those with a count on the vocabulary."""
    g: int
    """Genes kept."""
    p: int
    """Principal components."""
    slice_names: tuple[str, ...]
    """Names of the slices, in the order of the collection."""
    n_spots: tuple[int, ...]
    """Spots of each slice."""
    n_left_out: tuple[int, ...]
    """Spots of each slice that have no count on the vocabulary and are not here."""
    lognormalized: bool
    """Whether the input was log-normalised; there are no counts then."""
    transform: Transform
    """From log-normalised values to those that the components are of."""
    height: Literal["slice", "poisson", "all"]
    """How values of genes that a slice captures better or worse were brought to one height; see `Capture`."""
    notes: tuple[str, ...]
    """What the user should know about the pre-processing, one sentence each."""

    @classmethod
    def open(cls, path: Path) -> "FeatureStore":
        """Open a store.

        Parameters
        ----------
        path
            The store's folder.

        Raises
        ------
        InputError
            If `path` is not a complete feature store of this version.
        """
        path = Path(path)
        try:
            attrs = json.loads((path / "zarr.json").read_text(encoding="utf-8"))["attributes"][ATTRS]
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(f"{path} is not a feature store; run `stscale integrate` to make one") from None
        if attrs.get("format") != FORMAT or attrs.get("complete") is not True:
            raise InputError(
                f"{path} is a feature store of version {attrs.get('format')} (complete: {attrs.get('complete')}), "
                f"expected a complete one of version {FORMAT}; remove it and run again"
            )
        return cls(
            path=path,
            n=attrs["n"],
            g=attrs["g"],
            p=attrs["p"],
            slice_names=tuple(attrs["slices"]),
            n_spots=tuple(attrs["n_spots"]),
            n_left_out=tuple(attrs["n_left_out"]),
            lognormalized=attrs["lognormalized"],
            transform=Transform(**attrs["transform"]),
            height=attrs["height"],
            notes=tuple(attrs["notes"]),
        )

    @property
    def n_slices(self) -> int:
        """Slices."""
        return len(self.slice_names)

    def offsets(self) -> NDArray[np.int64]:
        """First row of each slice, (s + 1,); the last entry is n."""
        return np.concatenate([[0], np.cumsum(self.n_spots)]).astype(np.int64)

    def slice(self) -> NDArray[np.int32]:
        """Slice of each row, (n,)."""
        return self._array("slice")

    def row(self) -> NDArray[np.int64]:
        """Row of each spot in its slice's store, (n,), ascending in a slice."""
        return self._array("row")

    def xy(self, lo: int = 0, hi: int | None = None) -> NDArray[np.float64]:
        """Coordinates as given of the rows `lo` to `hi` (default: all), (hi - lo, 2 or 3)."""
        return self._array("xy", lo, hi)

    def library(self) -> NDArray[np.float32]:
        """Sum of each spot's counts over the vocabulary, (n,); 1 for log-normalised input."""
        return self._array("library")

    def left_out(self, i: int) -> NDArray[np.int64]:
        """Rows of slice `i`'s store without a count on the vocabulary, ascending."""
        ends = np.cumsum([0, *self.n_left_out])
        return self._array("left_out", int(ends[i]), int(ends[i + 1]))

    def genes(self) -> NDArray[np.str_]:
        """Names of the genes kept, (g,), sorted."""
        return np.array(self.var().index.tolist(), dtype=np.str_)

    def columns(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Columns of some genes, (k,), in the order asked.

        Raises
        ------
        InputError
            A gene given twice, or one that is not among the genes kept.
        """
        known = {name: column for column, name in enumerate(self.genes().tolist())}
        for name in names:
            if list(names).count(name) > 1:
                raise InputError(f"gene {name!r} is given twice")
            if name not in known:
                raise InputError(
                    f"gene {name!r} is not among the {len(known)} genes that the run kept; "
                    "raise preprocess.n_hvg and integrate again"
                )
        return np.array([known[name] for name in names], dtype=np.int64)

    def var(self) -> "pd.DataFrame":
        """Per gene: `mean` (of the values as ingested), `variance_norm`, `rank`, `n_slices`; see `GeneRanking`."""
        from anndata.io import read_elem

        table: pd.DataFrame = read_elem(_group(str(self.path), _stamp(self.path))["var"])
        return table

    def mask(self) -> NDArray[np.bool_]:
        """(s, g): whether the slice has the gene."""
        return self._array("mask")

    def gain(self) -> NDArray[np.float64]:
        """(s, g): factors of the transformed values of each slice; see `stscale.slices.transform`."""
        return self._array("gain")

    def pca(self, lo: int, hi: int) -> NDArray[np.float32]:
        """Principal component scores of the rows `lo` to `hi`, (hi - lo, p), of slices as they were moved (`kinds`)."""
        self._check(lo, hi)
        return self._array("pca", lo, hi)

    def pca_components(self) -> NDArray[np.float32]:
        """Principal axes, (p, g)."""
        return self._array("pca_components")

    def pca_mean(self) -> NDArray[np.float64]:
        """Mean of each transformed gene (`transform`) over the slices that have it, (g,)."""
        return self._array("pca_mean")

    def slice_mean(self) -> NDArray[np.float64]:
        """Mean of each transformed gene (`transform`) in each slice, (s, g); 0 where it lacks the gene."""
        return self._array("slice_mean")

    def kinds(self) -> Kinds:
        """Kinds of tissue on the axes, and how far each slice was moved to them; see `stscale.slices.kinds`."""
        gain = self._array("kinds_gain")
        return Kinds(centres=self._array("kinds"), move=self._array("move"), gain=float(gain[0]), own=gain[1:])

    def captured_mean(self) -> NDArray[np.float64]:
        """Mean of each transformed gene in each slice before `gain`, (s, g): what the slice captured of it."""
        return self.slice_mean() / self.gain()

    def pca_variance(self) -> NDArray[np.float64]:
        """Variance of the spots along each axis, (p,), in the order of the axes (`stscale.slices.pca`)."""
        return self._array("pca_variance")

    def pca_inverse(self) -> NDArray[np.float64]:
        """Factor of each gene before the axes were found, (g,); see `Components`."""
        return self._array("pca_inverse")

    def pca_noise(self) -> NDArray[np.float64]:
        """Share of noise in the variance of a spot along each axis, (p,); see `Components`."""
        return self._array("pca_noise")

    def vocabulary(self) -> NDArray[np.str_]:
        """Names of all genes that count for the library size, (v,), sorted; the genes kept are among them."""
        return np.array(self._array("vocabulary").tobytes().decode().split("\n"), dtype=np.str_)

    def vocabulary_mean(self) -> NDArray[np.float64]:
        """Mean value as ingested of each gene of the vocabulary, (v,), over the slices that have it."""
        return self._array("vocabulary_mean")

    def normalised(self, lo: int, hi: int) -> sparse.csr_matrix:
        """Log-normalised values of the rows `lo` to `hi`, (hi - lo, g) float32."""
        return self._csr("X", lo, hi)

    def counts(self, lo: int, hi: int) -> sparse.csr_matrix:
        """Raw counts of the rows `lo` to `hi`, (hi - lo, g) float32.

        Raises
        ------
        InputError
            If the input was log-normalised.
        """
        if self.lognormalized:
            raise InputError(f"{self.path} was made of log-normalised values and holds no counts; give raw counts")
        return self._csr("counts", lo, hi)

    def _check(self, lo: int, hi: int) -> None:
        if not 0 <= lo <= hi <= self.n:
            raise IndexError(f"rows {lo} to {hi} are not inside the feature store of {self.n} spots")

    def _csr(self, key: str, lo: int, hi: int) -> sparse.csr_matrix:
        self._check(lo, hi)
        return read_csr(_group(str(self.path), _stamp(self.path)), key, lo, hi, self.g)

    def _array(self, key: str, lo: int | None = None, hi: int | None = None) -> NDArray[Any]:
        group = _group(str(self.path), _stamp(self.path))
        if key not in group:
            raise InputError(
                f"{self.path} was made by an earlier version and lacks {key!r}; run stscale integrate with --fresh"
            )
        array = group[key]
        return np.asarray(array[lo:hi])  # type: ignore[index]  # zarr types an item as array or group


def build_features(
    collection: Collection,
    out: Path,
    *,
    config: Preprocess,
    seed: int,
    workers: int = 2,
    scheduler: Scheduler | None = "threads",
) -> FeatureStore:
    """Rank genes, normalise, and compute principal components, in two passes over the counts.

    Parameters
    ----------
    collection
        The slices.
    out
        Folder of the feature store; it appears whole or not at all.
    config
        Options; see `stscale.config.Preprocess`.
    seed
        Start vector of the eigenvector iteration.
    workers
        Threads that read and normalise blocks. It has no influence on the result.
    scheduler
        As in `stscale.slices.stream.reduce_blocks`.

    Returns
    -------
    FeatureStore

    Raises
    ------
    InputError
        If the values are not of the announced kind, a slice has no spot with a count on the vocabulary, genes
        cannot be ranked, or there are too few spots.
    """
    import zarr

    collection.check_counts(config)
    blocks = collection_blocks(collection, entries=config.block)
    ranked = rank_collection(collection, blocks, config=config, workers=workers, scheduler=scheduler)
    columns = ranked.ranking.columns
    function = partial(
        feature_rows, collection, columns, target_sum=config.target_sum, lognormalized=config.lognormalized
    )
    out = Path(out)
    with atomic_path(out) as part:
        root = zarr.open_group(part, mode="w", zarr_format=3)
        transform = Transform.of(config, float(ranked.mean.sum()))
        capture = slice_capture(collection, ranked.mean, config).columns(columns)
        writer = FeatureWriter(root, collection, columns, transform, capture.gain, lognormalized=config.lognormalized)
        n = sum(store.n for store in collection.stores)
        gram = Gram(capture.weight, _surroundings(config, n), every=max(1, n // SAMPLE))
        places = [store.coordinates() for store in collection.stores]
        for rows in map_blocks(function, blocks, workers=workers, scheduler=scheduler):
            writer.append(rows)
            i = rows.block.slice
            gram.add(i, transform.rows(rows.normalised, capture.gain, i), places[i][rows.kept])
        writer.close()
        components = gram.components(
            config.n_pcs,
            center="all" if config.center == "all" else "slice",
            scale=config.scale_genes,
            coherence=config.coherence,
            rare=config.rare if transform.kind == "sqrt" else "alike",
            precision=capture.precision,
            seed=seed,
        )
        squares = writer.write_components(components, workers=workers, scheduler=scheduler)
        writer.write_variance(gram.spread(squares))
        kinds = Kinds.none(len(places), len(components.axes))
        if config.center == "kinds":
            kinds = find_kinds(*writer.averages(), components.apart(), seed=seed)
        writer.write_kinds(kinds)
        notes = collection.notes() + ranked.notes + capture.notes() + components.notes + kinds.notes()
        writer.describe(ranked, height=capture.kind, notes=notes)
    return FeatureStore.open(out)


def _surroundings(config: Preprocess, n: int) -> Surroundings | None:
    """Return what averages n spots, so that there are many averages for each axis."""
    if config.axes == "spots":
        return None
    return Surroundings(max(1, min(EVERY, n // (MANY * config.n_pcs))))
