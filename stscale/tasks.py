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
    mapping = Mapping(finished, restat=restat, seed=seed, observer=observer or (lambda event: None))
    return MapResult(path=Path(out), slices=mapping.go(paths, Path(out)))
