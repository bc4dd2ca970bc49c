"""A new slice onto the genes and components of a run: a feature store like the run's own, nothing is fitted.

Genes of the run that its panel lacks, and those it captures less of than the run does, tell nothing, or less: the
scores are what the run's axes and the noise along them let expect (`stscale.slices.components`), as those of the run's
own slices are. A missing gene filled with its mean would shrink them by about the share of genes present, and the
network never saw latents so shrunk; least squares keeps the size and amplifies the noise of weak axes.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stscale.atomic import atomic_path
from stscale.config import Preprocess
from stscale.errors import InputError
from stscale.slices.collection import Collection
from stscale.slices.components import Components, orthonormal
from stscale.slices.feature_writer import FeatureWriter
from stscale.slices.features import FeatureStore
from stscale.slices.hvg import GeneRanking
from stscale.slices.kinds import Kinds, beside_kinds
from stscale.slices.preprocess import Ranked, feature_rows, slice_capture
from stscale.slices.store import SliceStore
from stscale.slices.stream import collection_blocks, map_blocks

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Panel:
    """What a slice shares with the genes of a run.

    Attributes
    ----------
    shared
        (g,) bool, the genes kept by the run that the slice has.
    library
        Share of the run's counts on the genes of its vocabulary that the slice has, in (0, 1].
    information
        Share of the variance of the run's scores that lies on the shared genes, in (0, 1]: tr(GΛ) / tr Λ with
        G = V_P V_Pᵀ of the axes on the genes present and the variances Λ along them.
    """

    shared: NDArray[np.bool_]
    library: float
    information: float


class Projection:
    """The frozen pre-processing of a run.

    Parameters
    ----------
    features
        Of the run.
    config
        The run's own.

    Raises
    ------
    InputError
        If the feature store is of a version that did not keep what is needed.
    """

    def __init__(self, features: FeatureStore, config: Preprocess) -> None:
        self.config = config
        self.vocabulary, self.vocabulary_mean = features.vocabulary(), features.vocabulary_mean()
        self.var: pd.DataFrame = features.var()
        self.genes = features.genes()
        self.transform = features.transform
        self.columns = np.searchsorted(self.vocabulary, self.genes)
        self.inverse, self.noise = features.pca_inverse(), features.pca_noise()
        self.axes = features.pca_components().astype(np.float64)
        self.variance, self.mean = features.pca_variance(), features.pca_mean()
        self.kinds, self.height = features.kinds(), features.height

    def panel(self, store: SliceStore) -> Panel:
        """Say what a slice shares with the run.

        Raises
        ------
        InputError
            If it shares fewer genes than `min_shared_genes` (or than the run keeps, if these are fewer).
        """
        have = np.isin(self.vocabulary, store.genes())
        shared = have[self.columns]
        needed = min(self.config.min_shared_genes, len(shared))
        if shared.sum() < needed:
            named = f"the run's are like {str(self.genes[0])!r}, the slice's like {str(store.genes()[0])!r}"
            raise InputError(
                f"slice {store.name!r} has {int(shared.sum())} of the {len(shared)} genes that the run reads, at least "
                f"{needed} are needed ({named}); give the same kind of gene names, or integrate the slice instead"
            )
        total = float(self.vocabulary_mean.sum())
        library = 1.0 if have.all() else float(self.vocabulary_mean[have].sum()) / max(total, 1e-300)
        return Panel(shared=shared, library=library, information=self._information(shared))

    def features(self, store: SliceStore, panel: Panel, out: Path, *, workers: int = 2) -> FeatureStore:
        """Write the features of one slice, in two passes over its values.

        Parameters
        ----------
        store
            The slice.
        panel
            Of this slice.
        out
            Folder of the feature store; it appears whole or not at all.
        workers
            Threads that read and normalise blocks. They have no influence on the result.

        Returns
        -------
        FeatureStore
            Of one slice; scores are around the run's mean where the run's are (`center = "all"`), else around its own;
            beside the run's kinds of tissue where the slices of the run were moved to these.

        Raises
        ------
        InputError
            If its values are not of the run's kind, none of its spots has a count on the run's genes, or a single
            one, which has no mean to be told from.
        """
        import zarr

        c = self.config
        self._check(store)
        collection = Collection.onto([store], self.vocabulary)
        # fewer genes hold fewer counts: a spot's library is its counts over the share they are expected to be
        function = partial(
            feature_rows,
            collection,
            self.columns,
            target_sum=c.target_sum * panel.library,
            lognormalized=c.lognormalized,
        )
        with atomic_path(out) as part:
            root = zarr.open_group(part, mode="w", zarr_format=3)
            as_found = replace(c, gain=self.height)  # what the run took, whatever this slice is like
            capture = slice_capture(collection, self.vocabulary_mean, as_found).columns(self.columns)
            writer = FeatureWriter(
                root, collection, self.columns, self.transform, capture.gain, lognormalized=c.lognormalized
            )
            total, n = np.zeros(len(self.columns)), 0
            for rows in map_blocks(function, collection_blocks(collection, entries=c.block), workers=workers):
                writer.append(rows)
                values = self.transform.rows(rows.normalised, capture.gain, 0)
                total += np.bincount(values.indices, weights=values.data, minlength=len(total))
                n += values.shape[0]
            writer.close()
            if n < 2 and c.center != "all":
                raise InputError(
                    f"slice {store.name!r} has {n} spot with counts; the run was centred on each slice's own mean, "
                    "so at least 2 are needed"
                )
            components = self._components(panel, capture.precision, total / n)
            writer.write_components(components, workers=workers)
            writer.write_variance(self.variance)
            kinds = Kinds.none(1, len(self.axes))
            if self.kinds.moved:
                kinds = beside_kinds(writer.averages()[0], self.kinds, components.apart()[0])
            writer.write_kinds(kinds)
            writer.describe(self._ranked(), height=self.height, notes=())
        return FeatureStore.open(out)

    def _check(self, store: SliceStore) -> None:
        c = self.config
        if c.fractional or (store.lognormalized if c.lognormalized else store.is_counts):
            return
        raise InputError(
            f"slice {store.name!r} holds {store.kind} (max {store.max_value:.3g}), the run was trained on "
            f"{'log-normalised values' if c.lognormalized else 'counts'}; give the same"
        )

    def _information(self, shared: NDArray[np.bool_]) -> float:
        on = np.sum(orthonormal(self.axes, self.inverse)[:, shared] ** 2, axis=1)
        return float(on @ self.variance / max(float(self.variance.sum()), 1e-300))

    def _components(self, panel: Panel, precision: NDArray[np.float64], slice_mean: NDArray[np.float64]) -> Components:
        """Return what maps the genes present to the full scores, around the slice's centre."""
        own = np.where(panel.shared, slice_mean, 0.0)[None]
        return Components(
            axes=self.axes,
            variance=self.variance,
            noise=self.noise,
            mean=self.mean,
            slice_mean=own,
            centre=self.mean[None] if self.config.center == "all" else own,
            inverse=self.inverse,
            precision=np.where(panel.shared, precision, 0.0),
            notes=(),
        )

    def _ranked(self) -> Ranked:
        def spread(name: str) -> NDArray[np.float64]:
            out = np.full(len(self.vocabulary), np.nan)
            out[self.columns] = self.var[name].to_numpy()
            return out

        ranking = GeneRanking(
            columns=self.columns,
            rank=spread("rank"),
            n_slices=np.nan_to_num(spread("n_slices")).astype(np.int64),
            variance_norm=spread("variance_norm"),
        )
        return Ranked(ranking=ranking, mean=self.vocabulary_mean, notes=())
