"""The public Python API for finished runs: what the command line calls."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stscale.errors import InputError
from stscale.inputs import check_inputs
from stscale.telling import Observer
from stscale.threads import set_threads

if TYPE_CHECKING:
    import anndata

    from stscale.downstream.mapping import MappedSlice


@dataclass(frozen=True, slots=True, kw_only=True)
class MapResult:
    """Mapped slices.

    Attributes
    ----------
    path
        The folder with mapped.zarr and mapped.json.
    slices
        What became of each, in the order given.
    """

    path: Path
    slices: "tuple[MappedSlice, ...]"

    def adata(self) -> "anndata.AnnData":
        """Read `mapped.zarr`."""
        import anndata

        return anndata.read_zarr(self.path / "mapped.zarr")


def map_slices(
    run: str | Path,
    slices: Sequence[str | Path],
    *,
    out: str | Path,
    split: str | None = None,
    restat: bool = False,
    seed: int = 0,
    threads: int = 0,
    observer: Observer | None = None,
) -> MapResult:
    """Embed and label new slices with the model of a finished run; nothing is trained, the run is only read.

    Parameters
    ----------
    run
        The run folder.
    slices
        Slices as for `integrate`. Genes of the run that a slice lacks are predicted from those it has, in the space
        of the run's components (`stscale.slices.projection`).
    out
        Folder of mapped.zarr (obsm X_stscale; obs stscale_domain, stscale_confidence, stscale_slice; rows as given)
        and mapped.json (a verdict per slice). It appears whole; an earlier mapping there is replaced.
    split
        Column of obs whose values are slices of their own, in an input that holds several.
    restat
        Measure the normalisation statistics of the network anew on each slice.
    seed
        Of the training latents that distances are taken to.
    threads
        CPU threads; 0 takes all cores.
    observer
        Called with each event (a dict) as it happens.

    Returns
    -------
    MapResult

    Raises
    ------
    StscaleError
        For bad input, in one line: a run that is not finished, slices of another kind of values, too few shared genes.
    """
    from stscale.downstream.finished import Finished
    from stscale.downstream.mapping import Mapping

    paths = check_inputs(slices)
    finished = Finished.open(run)
    set_threads(threads or finished.config.threads)
    mapping = Mapping(finished, restat=restat, seed=seed, observer=observer or (lambda event: None), split=split)
    return MapResult(path=Path(out), slices=mapping.go(paths, Path(out)))


def impute(
    run: str | Path,
    genes: Sequence[str],
    *,
    by: str = "regression",
    threads: int = 0,
    observer: Observer | None = None,
) -> Path:
    """Write what the latents of a finished run say of some genes, also in slices whose panel lacks them.

    Parameters
    ----------
    run
        The run folder.
    genes
        Among the genes that the run kept. With `preprocess.genes = "union"` a slice need not have measured them.
    by
        `"regression"`: ridge regression on the latents over the slices that measured a gene. `"decoder"`: the
        network's own reconstruction (method spotscape).
    threads
        CPU threads; 0 takes all cores.
    observer
        Called with each event (a dict) as it happens.

    Returns
    -------
    Path
        RUN/imputed.zarr, an AnnData: rows as integrated.zarr, one column per gene, log-normalised values (natural log
        of 1 + counts per `preprocess.target_sum`), NaN for spots without counts. An earlier one is replaced.

    Raises
    ------
    StscaleError
        For bad input, in one line: a run that is not finished, a gene it did not keep, a network without a trained
        decoder of expression.
    """
    from stscale.downstream.finished import Finished
    from stscale.downstream.imputing import FILE, Imputing

    finished = Finished.open(run)
    set_threads(threads or finished.config.threads)
    Imputing(finished, by, observer or (lambda event: None)).go(genes)
    return finished.path / FILE


def trajectory(
    run: str | Path, root: str, *, seed: int = 0, threads: int = 0, observer: Observer | None = None
) -> Path:
    """Order the spots of a finished run by diffusion pseudotime from a root domain.

    Parameters
    ----------
    run
        The run folder. Its integrated.zarr gets the obs column `stscale_pseudotime`, in [0, 1]; figures/trajectory.png
        shows it.
    root
        Name of the domain where it starts.
    seed
        Of the subsample (past 50 000 spots), and of the eigenvectors' start.
    threads
        CPU threads; 0 takes all cores.
    observer
        Called with each event (a dict) as it happens.

    Returns
    -------
    Path
        RUN/trajectory.csv: the connectivity of each two domains (PAGA).

    Raises
    ------
    StscaleError
        For bad input, in one line: a run that is not finished, no such domain.
    """
    from stscale.downstream.finished import Finished
    from stscale.downstream.ordering import FILE, Ordering

    finished = Finished.open(run)
    set_threads(threads or finished.config.threads)
    Ordering(finished, observer or (lambda event: None)).go(root, seed=seed)
    return finished.path / FILE


def transfer(
    run: str | Path,
    *,
    labels: Sequence[str] = (),
    genes: Sequence[str] = (),
    threads: int = 0,
    observer: Observer | None = None,
) -> Path:
    """Carry labels or expression from slice to slice through the plans of an aligned run.

    Parameters
    ----------
    run
        The run folder, aligned before.
    labels
        obs columns carried from each pair's target to its source: `stscale_transfer_COLUMN` and `…_p`.
    genes
        Genes whose log-normalised expression is carried over, into transfer-genes.zarr.
    threads
        CPU threads; 0 takes all cores.
    observer
        Called with each event (a dict) as it happens.

    Returns
    -------
    Path
        RUN/integrated.zarr. What an earlier transfer left is replaced.

    Raises
    ------
    StscaleError
        For bad input, in one line: a run that is not aligned, no such column, a gene that the run did not keep.
    """
    from stscale.aligning.transfer import carry_over, check_genes, read_labels
    from stscale.alignment import RunSlices, read_alignment
    from stscale.rundir import RunFolder
    from stscale.telling import Telling

    run = Path(run)
    slices = RunSlices.open(run)
    alignment = read_alignment(run)
    if alignment is None:
        raise InputError(f"{run} is not aligned; run stscale align on it first")
    if not labels and not genes:
        raise InputError("nothing to carry over; name an obs column with --labels, or genes with --genes A,B")
    for column in labels:
        read_labels(slices, column)
    if genes:
        check_genes(run, genes)
    set_threads(threads)
    carry_over(Telling(RunFolder(run), observer or (lambda event: None)), slices, alignment, labels, genes)
    return run / "integrated.zarr"


def export(
    run: str | Path,
    *,
    out: str | Path,
    sources: Sequence[str | Path] = (),
    table: str = "stscale",
    overwrite: bool = False,
    observer: Observer | None = None,
) -> Path:
    """Write what a finished run found as SpatialData, one folder per slice; the run and the slices are only read.

    A slice that came from SpatialData is copied with all its elements and gets a further table, which annotates what
    its own table annotates; every other slice, and each of several that one input held, becomes a new folder with a
    circle for each spot. Of an aligned run, the elements get a transformation to the coordinate system `stscale`, the
    common frame. Needs `stscale[spatialdata]`.

    Parameters
    ----------
    run
        The run folder.
    out
        Folder of SLICE.zarr and of export.json, which tells what was done. It appears whole or not at all.
    sources
        Where the inputs are now, in the order of the run; default: where the run found them.
    table
        Name of the table: obs `stscale_domain` and other columns that the run made, obsm `X_stscale`, `spatial` and,
        of an aligned run, `spatial_aligned` (and `spatial_3d`); no X.
    overwrite
        Replace an earlier export in `out`, and a table and a coordinate system of the same name in the copies.
    observer
        Called with each event (a dict) as it happens.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    StscaleError
        For bad input, in one line: spatialdata is not installed, a run that is not finished, slices that are gone or
        have changed, a name that is taken.
    """
    from stscale.downstream.exporting import Exporting

    exporting = Exporting(Path(run), table, observer or (lambda event: None))
    exporting.go([Path(s) for s in sources], Path(out), overwrite=overwrite)
    return Path(out)
