"""imputed.zarr: what the latents of a run say of some genes, at every spot of every slice."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from stscale.device import pick_device
from stscale.downstream.finished import Finished
from stscale.errors import InputError
from stscale.options import digest
from stscale.rundir import RunFolder
from stscale.slices import keys
from stscale.telling import Observer, Telling

FILE = "imputed.zarr"
WAYS = ("regression", "decoder")
Values = Callable[[NDArray[np.float32], int], NDArray[np.float32]]
"""Latents (m, d) of a slice → values (m, k)."""

ROWS = 8192


class Imputing(Telling):
    """The imputation of one finished run.

    Parameters
    ----------
    run
        The run.
    by
        `"regression"`: ridge regression of the genes on the latents, over the slices that measured them.
        `"decoder"`: what the network itself makes of the latents.
    observer
        Called with each event.

    Raises
    ------
    InputError
        If `by` is none of these, or `"decoder"` of a run whose network has no trained decoder of expression.
    """

    def __init__(self, run: Finished, by: str, observer: Observer) -> None:
        c = run.config
        if by not in WAYS:
            raise InputError(f"--by {by!r}: expected {' or '.join(WAYS)}")
        if by == "decoder" and not c.trains:
            raise InputError(f"{run.path} was made by method {c.method!r}, which has no decoder; impute by regression")
        if by == "decoder" and c.method != "spotscape":
            raise InputError(
                f"{run.path} was trained with method {c.method!r}, whose decoder gives parameters of counts and no "
                "expression; impute by regression"
            )
        if by == "decoder" and not c.spotscape.w_reconstruction:
            raise InputError(
                f"the decoder of {run.path} is not trained: spotscape.w_reconstruction is 0; impute by regression"
            )
        super().__init__(RunFolder(run.path), observer)
        self.finished, self.by = run, by

    def go(self, genes: Sequence[str]) -> None:
        """Write imputed.zarr, unless it holds these genes already.

        Raises
        ------
        InputError
            For genes that the run did not keep, or that are given twice.
        """
        if not genes:
            raise InputError("no genes given; name at least one, as --genes A,B")
        columns = self.finished.features.columns(genes)
        path = self.run.file(FILE)
        now = digest([self.run.manifest["stages"]["write"]["digest"], list(genes), self.by])
        if self.run.finished("impute", now, path):
            self.skip("impute")
            return
        from stscale.output import write_genes

        self.observer({"event": "stage", "stage": "impute", "state": "start"})
        with self.run.stage("impute", now) as found:
            values = self._decoding(columns) if self.by == "decoder" else self._regression(columns)
            write_genes(path, self._blocks(values), list(genes), self.run.file("integrated.zarr"))
            found.update(genes=list(genes), by=self.by)

    def _regression(self, columns: NDArray[np.int64]) -> Values:
        from stscale.analysis.regression import Moments

        features, z = self.finished.features, self.finished.latents()
        moments = Moments(features.n_slices, z.shape[1], len(columns))
        for i, (start, stop) in enumerate(pairwise(features.offsets().tolist())):
            for lo in range(start, stop, ROWS):
                hi = min(lo + ROWS, stop)
                moments.add(i, z[lo:hi], features.normalised(lo, hi)[:, columns])
        return moments.fit(features.mask()[:, columns])

    def _decoding(self, columns: NDArray[np.int64]) -> Values:
        from stscale.analysis.imputation import Decoding, Loadings
        from stscale.graphs import load
        from stscale.models import Spotscape
        from stscale.training.inputs import component_scale, pca_inputs, target_scale
        from stscale.training.trained import trained

        c, features = self.finished.config, self.finished.features
        width = features.g if c.spotscape.input == "genes" else features.p
        method = trained(self.finished.path, c, features, width, pick_device(c.device))
        if not isinstance(method, Spotscape):
            raise TypeError(f"expected a Spotscape, found {type(method).__name__}")
        if c.spotscape.input == "genes":
            return Decoding(method, columns, None)
        scratch = self.run.file("scratch")
        graph = load(self.run.file(c.graph.file))
        try:
            inputs = pca_inputs(features, graph, scratch, smooth=c.spotscape.smooth)
            scale = target_scale(inputs, graph, scratch, rounds=c.spotscape.target_smooth) * component_scale(features)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return Decoding(method, columns, Loadings.build(features, columns, c.preprocess.center), scale)

    def _blocks(self, values: Values) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield rows of integrated.zarr with a latent, and their values, slice by slice."""
        import zarr
        from anndata.io import read_elem

        root = zarr.open_group(self.run.file("integrated.zarr"), mode="r", use_consolidated=False)
        latents = root[f"obsm/{keys.EMBEDDING}"]
        codes = np.asarray(read_elem(root[f"obs/{keys.SLICE}"]).codes)
        ends = np.flatnonzero(np.r_[True, np.diff(codes) != 0, True])
        for start, stop in pairwise(ends.tolist()):
            for lo in range(start, stop, ROWS):
                z = np.asarray(latents[lo : min(lo + ROWS, stop)])  # type: ignore[index]  # array or group
                held = np.flatnonzero(np.isfinite(z).all(axis=1))
                if len(held):
                    yield lo + held, values(z[held], int(codes[lo]))
