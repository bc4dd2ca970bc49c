"""Labels and expression carried to the slices that were laid on others."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stscale.errors import InputError
from stscale.options import digest
from stscale.slices import keys
from stscale.telling import Telling

if TYPE_CHECKING:
    from stscale.alignment import Alignment, PairRecord, RunSlices
    from stscale.transport import Plan

GENES_FILE = "transfer-genes.zarr"
ROWS = 8192


class Transferring:
    """Carries over along the pairs of an alignment, from target to source.

    Parameters
    ----------
    run
        The run folder.
    slices, alignment
        Of this run.
    """

    def __init__(self, run: Path, slices: "RunSlices", alignment: "Alignment") -> None:
        self.run, self.slices, self.alignment = run, slices, alignment

    def outputs(self, labels: Sequence[str], genes: Sequence[str]) -> list[Path]:
        """Return what `labels` and `genes` write."""
        frame = self.run / "integrated.zarr" / "obs"
        return [frame / f"{keys.TRANSFER}{c}" for c in labels] + [self.run / GENES_FILE] * bool(genes)

    def forget(self) -> None:
        """Remove what an earlier transfer left."""
        from stscale.output import drop_obs, obs_columns

        integrated = self.run / "integrated.zarr"
        drop_obs(integrated, [c for c in obs_columns(integrated) if c.startswith(keys.TRANSFER)])
        shutil.rmtree(self.run / GENES_FILE, ignore_errors=True)

    def labels(self, columns: Sequence[str]) -> None:
        """Add obs columns `stscale_transfer_COLUMN` (categorical) and `…_p` (float64) to integrated.zarr.

        Parameters
        ----------
        columns
            Annotations to carry over.
        """
        import pandas as pd

        from stscale.alignment import transfer_labels
        from stscale.output import add_obs

        made: dict[str, Any] = {}
        for column in columns:
            codes, names = read_labels(self.slices, column)
            found, p = np.full(self.slices.n, -1, np.int64), np.full(self.slices.n, np.nan)
            for source, pairs in self._sources():
                rows = self.slices.fit_rows(source)
                given = [codes[self.slices.fit_rows(self._place(pair.target))] for pair in pairs]
                found[rows], p[rows] = transfer_labels([self._plan(pair) for pair in pairs], given, len(names))
            made[f"{keys.TRANSFER}{column}"] = pd.Categorical.from_codes(found, names)  # type: ignore[call-overload]
            made[f"{keys.TRANSFER}{column}_p"] = p
        if made:
            add_obs(self.run / "integrated.zarr", made)

    def genes(self, names: Sequence[str]) -> None:
        """Write transfer-genes.zarr: log-normalised expression of the targets, pulled through the plans."""
        from stscale.alignment import transfer_values
        from stscale.output import write_genes

        if not names:
            return
        read = self._reader(names)

        def blocks() -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
            for source, pairs in self._sources():
                given = [read(self._place(pair.target)) for pair in pairs]
                yield self.slices.fit_rows(source), transfer_values([self._plan(pair) for pair in pairs], given)

        write_genes(self.run / GENES_FILE, blocks(), list(names), self.run / "integrated.zarr")

    def _reader(self, names: Sequence[str]) -> Callable[[int], NDArray[np.float32]]:
        """Return a function slice → its values of some genes (m, genes), rows as `RunSlices.fit_rows`."""
        from stscale.output import output_rows
        from stscale.slices import Collection, SliceStore
        from stscale.slices.features import FeatureStore

        features = FeatureStore.open(self.run / "features.zarr")
        measured, offsets, columns = features.mask(), features.offsets(), features.columns(names)
        stores = [SliceStore.open(path) for path in self.slices.stores()]
        out = output_rows(Collection.build(stores, genes="union", min_shared=0), features)

        def read(i: int) -> NDArray[np.float32]:
            lo, hi = int(offsets[i]), int(offsets[i + 1])
            blocks = [features.normalised(a, min(a + ROWS, hi))[:, columns].toarray() for a in range(lo, hi, ROWS)]
            values = np.concatenate(blocks)[np.argsort(out[lo:hi])]
            values[:, ~measured[i, columns]] = np.nan
            return values

        return read

    def _sources(self) -> list[tuple[int, list["PairRecord"]]]:
        pairs = self.alignment.pairs
        places = sorted({self._place(pair.source) for pair in pairs})
        return [(i, [pair for pair in pairs if self._place(pair.source) == i]) for i in places]

    def _place(self, name: str) -> int:
        return self.slices.names.index(name)

    def _plan(self, pair: "PairRecord") -> "Plan":
        from stscale.alignment import plan_path
        from stscale.transport import Plan

        return Plan.load(plan_path(self.run, pair))


def carry_over(
    told: Telling, slices: "RunSlices", alignment: "Alignment", labels: Sequence[str], genes: Sequence[str]
) -> None:
    """Do the stage of a transfer, unless just this was done: what an earlier one left is replaced.

    Parameters
    ----------
    told
        The run folder, and who watches.
    slices, alignment
        Of this run.
    labels, genes
        As in `Transferring`.
    """
    run = told.run
    now = digest([run.manifest["stages"]["align"]["digest"], list(labels), list(genes)])
    job = Transferring(run.path, slices, alignment)
    if run.finished("transfer", now, *job.outputs(labels, genes)):
        told.skip("transfer")
        return
    told.observer({"event": "stage", "stage": "transfer", "state": "start"})
    with run.stage("transfer", now) as found:
        job.forget()
        job.labels(labels)
        job.genes(genes)
        found.update(labels=list(labels), genes=list(genes))


def read_labels(slices: "RunSlices", column: str) -> tuple[NDArray[np.int64], list[str]]:
    """Read an annotation of integrated.zarr: (n,) codes, −1 for none, and the labels' names.

    Raises
    ------
    InputError
        When there is no such column, it holds numbers with fractions, or no label at all.
    """
    import pandas as pd
    from anndata.io import read_elem

    from stscale.analysis import labelled

    order = list(slices.root["obs"].attrs["column-order"])
    if column not in order:
        raise InputError(f"obs has no column {column!r}; it has {', '.join(order)}")
    values = pd.Series(read_elem(slices.root[f"obs/{column}"]))
    if pd.api.types.is_float_dtype(values.dtype):
        raise InputError(f"obs[{column!r}] holds numbers, not labels; give a column of categories or text")
    given = values.astype(object).to_numpy()
    mask, codes = labelled(given)
    if not mask.any():
        raise InputError(f"obs[{column!r}] has no label: every value is missing")
    first = np.unique(codes[mask], return_index=True)[1]
    return codes, [str(name) for name in given[mask][first]]


def check_genes(run: Path, names: Sequence[str]) -> None:
    """Check that genes can be carried over.

    Raises
    ------
    InputError
        A gene given twice, or one that is not among the genes kept.
    """
    from stscale.slices.features import FeatureStore

    FeatureStore.open(run / "features.zarr").columns(names)
