"""The public Python API: what the command line calls."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stscale import config as options
from stscale import ranks
from stscale.cluster import check_shared, cluster
from stscale.config import Run
from stscale.device import pick_device
from stscale.errors import InputError, StscaleError
from stscale.inputs import check_inputs
from stscale.integrating import Integration
from stscale.results import AlignResult, Result
from stscale.rundir import MANIFEST, RunFolder
from stscale.stopping import Stopped
from stscale.telling import Observer
from stscale.threads import available_cores, local_ranks, set_threads

if TYPE_CHECKING:
    from stscale.alignment import PairList, RunSlices
    from stscale.planning import Plan


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

    Notes
    -----
    With `graph.across`, slices are laid on each other before the embedding, which then sees the spots of the slices
    beside a spot's own too, and the finished run is aligned as `align` does.

    Raises
    ------
    StscaleError
        For bad input or settings, in one line. A folder that this call made is removed again unless its features
        were finished.
    Stopped
        When a stop was asked for (`stscale.stopping`); the same call goes on from there.
    """
    from stscale.training.launch import group

    config = config or Run()
    paths = check_inputs(slices)
    if fresh and any(Path(out).resolve() in p.resolve().parents for p in paths):
        raise InputError(f"the slices are inside {out}, which starting over would delete; give another folder")
    config.check_sections()
    if config.graph.across:
        check_unaligned(paths, config)
    with group():
        if ranks.number() > 0:
            return _follow(config)
        lead = _Lead(paths, Path(out), config, observer or (lambda event: None))
        try:
            result = lead.go(fresh=fresh)
        except BaseException as error:
            if not lead.busy:  # in a step the others meet the error, or the end of the connection, themselves
                ranks.agreed(error.number if isinstance(error, Stopped) else None)
            raise
        ranks.agreed(result)
    if config.graph.across:
        _align_run(result.path, None, (), (), fresh=False, tell=observer or (lambda event: None))
    return result


def align(
    run_or_slices: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    config: Run | None = None,
    transfer_labels: Sequence[str] = (),
    transfer_genes: Sequence[str] = (),
    fresh: bool = False,
    observer: Observer | None = None,
) -> AlignResult:
    """Lay the slices of a run into one frame, and say which spot corresponds to which; no fit sees a label.

    Parameters
    ----------
    run_or_slices
        A finished run folder, aligned in place; or slices as for `integrate`, integrated first.
    out
        The run folder of slices; not for a run.
    config
        All options; `align`, `seed` and `threads` matter to the alignment. Default: those of the run's config.toml,
        or `Run()` for slices.
    transfer_labels
        obs columns carried from each pair's target to its source: `stscale_transfer_COLUMN` and `…_p`.
    transfer_genes
        Genes whose log-normalised expression is carried over, into transfer-genes.zarr.
    fresh
        Do everything anew; of a run, the alignment alone.
    observer
        Called with each event (a dict) as it happens.

    Returns
    -------
    AlignResult

    Raises
    ------
    StscaleError
        For bad input or settings, in one line; what is wrong with pairs, columns or genes of a finished run is said
        before anything in it is touched.
    """
    tell = observer or (lambda event: None)
    given = [run_or_slices] if isinstance(run_or_slices, str | Path) else list(run_or_slices)
    paths = check_inputs(given)
    if len(paths) == 1 and (paths[0] / MANIFEST).is_file():
        run = paths[0]
        if out is not None and Path(out).resolve() != run.resolve():
            raise InputError(f"{run} is a run and is aligned in place; leave out the other folder, {out}")
    else:
        if out is None:
            raise InputError("slices are integrated before they are aligned; give a folder for the run with -o")
        run = Path(out)
        check_unaligned(paths, config or Run())
        integrate(paths, out=run, config=config, fresh=fresh, observer=observer)
    return _align_run(run, config, tuple(transfer_labels), tuple(transfer_genes), fresh=fresh, tell=tell)


def check_unaligned(paths: list[Path], config: Run) -> None:
    """Say before an integration what would stop the alignment after it.

    Raises
    ------
    InputError
        Naming the slice, or what is wrong with pairs or heights.
    """
    from stscale.slices import SliceStore, is_store, open_source
    from stscale.slices.split import slice_names

    names = []
    for path, held in zip(paths, slice_names(paths, config.ingest), strict=True):
        if is_store(path):
            store = SliceStore.open(path)
            held, dims = [store.name], store.dims
        else:
            dims = open_source(path, config=config.ingest).coordinates.shape[-1]
        names += held
        if dims != 2:
            raise InputError(
                f"slice {held[0]!r} has {dims} coordinates per spot; alignment works in the plane: keep two columns "
                "and give the heights with --z or --spacing"
            )
    _checked_pairs(names, config)


def _checked_pairs(names: Sequence[str], config: Run) -> "PairList":
    """Return the pairs, after a look at the heights too."""
    from stscale.alignment import PairList, heights

    pairs = PairList.build(names, config.align.pairs, reference=config.align.reference)
    if config.align.z is not None:
        heights(len(names), z=config.align.z)
    return pairs


def check_align(
    run: Path, config: Run, labels: Sequence[str] = (), genes: Sequence[str] = ()
) -> "tuple[RunSlices, PairList]":
    """Return the slices of a finished run and the pairs to align; nothing in the run is touched.

    Raises
    ------
    InputError
        When the run is not finished, or pairs, heights, columns or genes do not fit it.
    """
    from stscale.aligning.transfer import check_genes, read_labels
    from stscale.alignment import RunSlices

    slices = RunSlices.open(run)
    pairs = _checked_pairs(slices.names, config)
    for column in labels:
        read_labels(slices, column)
    if genes:
        check_genes(run, tuple(genes))
    return slices, pairs


def _align_run(
    run: Path, config: Run | None, labels: tuple[str, ...], genes: tuple[str, ...], *, fresh: bool, tell: Observer
) -> AlignResult:
    from stscale.aligning import Aligning

    config = config or options.load(run / "config.toml")
    slices, pairs = check_align(run, config, labels, genes)
    set_threads(config.threads or _threads())
    folder = RunFolder(run)
    folder.command("align")
    aligning = Aligning(folder, slices, pairs, config, tell)
    if fresh:
        aligning.forget()
    return AlignResult(path=run, alignment=aligning.go(labels=labels, genes=genes))


def plan(
    slices: Sequence[str | Path], *, out: str | Path = ".", config: Run | None = None, idle: bool = False
) -> "Plan":
    """Predict what `integrate` would take, from headers and a probe of this machine of about a second.

    Parameters
    ----------
    slices, config
        As `integrate`.
    out
        Where the run would be written.
    idle
        Count the GPU memory that other processes hold as free, for a run that starts when they are gone.

    Returns
    -------
    Plan
        Memory, disk and time of every stage; its `run` has the options lowered to the budgets `max_ram` and
        `max_vram`.

    Raises
    ------
    StscaleError
        For bad input, or when nothing makes the run fit: with the smallest budget that would do.
    """
    from stscale.planning import make_plan, probe, read_headers

    config = config or Run()
    config.check_sections()
    cuda = pick_device(config.device).type == "cuda"
    threads = set_threads(config.threads or _threads())
    headers = [header for path in check_inputs(slices) for header in read_headers(path, config.ingest)]
    machine = probe(Path(out), threads=threads, cuda=cuda, idle=idle)
    return make_plan(headers, config, machine, cuda=cuda, folder=Path(out))


def _follow(config: Run) -> Result:
    """Take part in the training that rank 0 leads, and wait for its result."""
    from stscale.training.job import follow

    set_threads(config.threads or _threads())
    result = follow(pick_device(config.device))
    if isinstance(result, int):
        raise Stopped(result)
    if not isinstance(result, Result):
        raise StscaleError("rank 0 stopped before the end; its own message says why")
    return result


class _Lead:
    """A run as rank 0 (or the only process) makes it."""

    def __init__(self, paths: list[Path], out: Path, config: Run, tell: Observer) -> None:
        self.paths, self.out, self.config, self.tell = paths, out, config, tell
        self._integration: Integration | None = None

    @property
    def busy(self) -> bool:
        """Whether the other ranks are training too."""
        return self._integration is not None and self._integration.busy

    def go(self, *, fresh: bool) -> Result:
        """Plan, then do the stages."""
        found = plan(self.paths, out=self.out, config=self.config)
        threads = set_threads(found.run.threads or _threads())
        self.tell({"event": "plan", **found.record(), "notes": found.notes})
        with cluster(found.run.scheduler, threads=threads) as compute:
            # workers have working directories of their own
            paths = [p.absolute() for p in self.paths] if compute.remote else self.paths
            run = RunFolder(self.out.absolute() if compute.remote else self.out, fresh=fresh)
            run.manifest["plan"] = found.record()
            run.command("integrate")
            self._integration = Integration(run, paths, found.run, self.tell, compute)
            return self._stages(self._integration)

    def _stages(self, integration: Integration) -> Result:
        run = integration.run
        try:
            if integration.compute.remote:
                check_shared(run.path, integration.paths)
            collection, features, labels = integration.go()
        except InputError:
            # slices that cannot be integrated leave nothing behind, not even their stores
            run.discard_if_new(before="features")
            raise
        except BaseException as error:
            if not isinstance(error, Stopped):  # the next start goes on there
                run.discard_if_new()
            raise
        curve = run.manifest["stages"]["domains"].get("curve") or {}
        return Result(
            path=run.path,
            n=collection.n,
            left_out=collection.n - features.n,
            slices=tuple(s.name for s in collection.stores),
            k=int(labels.max()) + 1,
            # runs finished before the range existed have none
            k_range=(curve["low"], curve["high"]) if "low" in curve else None,
        )


def _threads() -> int:
    """Share the cores among the ranks of this machine."""
    return max(1, available_cores() // local_ranks())
