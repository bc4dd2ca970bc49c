"""The public Python API: what the command line calls."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stscale.cluster import check_shared, cluster
from stscale.compute import Compute
from stscale.config import Run
from stscale.errors import InputError
from stscale.rundir import RunFolder
from stscale.stages import Integration, Observer

if TYPE_CHECKING:
    import anndata


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A finished run.

    Attributes
    ----------
    path
        The run folder.
    n, left_out
        Spots in the output, and how many of them took no part in the fit (no count on the used genes).
    slices
        Names in the order given.
    k
        Number of domains.
    """

    path: Path
    n: int
    left_out: int
    slices: tuple[str, ...]
    k: int

    def adata(self) -> "anndata.AnnData":
        """Read `integrated.zarr`."""
        import anndata

        return anndata.read_zarr(self.path / "integrated.zarr")


def integrate(
    slices: Sequence[str | Path],
    *,
    out: str | Path,
    config: Run | None = None,
    fresh: bool = False,
    observer: Observer | None = None,
) -> Result:
    """Integrate slices into one latent space and find their domains; labels are never read.

    Parameters
    ----------
    slices
        Slice stores, AnnData (.h5ad or .zarr), 10x Visium folders or SpatialData Zarrs; the output keeps their
        order.
    out
        The run folder. Finished stages with unchanged inputs and options are reused, an interrupted training
        goes on from its last checkpoint.
    config
        All options; default `Run()`. With a scheduler, ingestion, features, graphs and the embedding compute on its
        workers: the result is the same.
    fresh
        Start over, whatever the folder holds.
    observer
        Called with each event (a dict) as it happens, for a progress display.

    Returns
    -------
    Result

    Raises
    ------
    StscaleError
        For bad input or settings, in one line. A folder that this call made is removed again unless its features
        were finished.
    """
    from stscale.threads import set_threads

    config = config or Run()
    paths = _check_inputs(slices)
    if fresh and any(Path(out).resolve() in p.resolve().parents for p in paths):
        raise InputError(f"the slices are inside {out}, which starting over would delete; give another folder")
    threads = set_threads(config.threads)
    with cluster(config.scheduler, threads=threads) as compute:
        if compute.remote:
            # workers have working directories of their own
            paths, out = [p.absolute() for p in paths], Path(out).absolute()
        return _run(paths, Path(out), config, compute, observer or (lambda event: None), fresh=fresh)


def _run(paths: list[Path], out: Path, config: Run, compute: Compute, observer: Observer, *, fresh: bool) -> Result:
    run = RunFolder(out, fresh=fresh)
    try:
        if compute.remote:
            check_shared(run.path, paths)
        collection, features, labels = Integration(run, paths, config, observer, compute).go()
    except InputError:
        # slices that cannot be integrated leave nothing behind, not even their stores
        run.discard_if_new(before="features")
        raise
    except BaseException:
        run.discard_if_new()
        raise
    return Result(
        path=run.path,
        n=collection.n,
        left_out=collection.n - features.n,
        slices=tuple(s.name for s in collection.stores),
        k=int(labels.max()) + 1,
    )


def _check_inputs(slices: Sequence[str | Path]) -> list[Path]:
    paths = [Path(s) for s in slices]
    if not paths:
        raise InputError("no slices given: name at least one .zarr, .h5ad or 10x Visium folder")
    for path in paths:
        if not path.exists():
            raise InputError(f"{path} does not exist")
    if len({p.resolve() for p in paths}) < len(paths):
        twice = next(p for p in paths if sum(q.resolve() == p.resolve() for q in paths) > 1)
        raise InputError(f"{twice} is given more than once")
    return paths
