"""One training as every rank sees it: from features and graph on disk to a trained method."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from stscale import ranks
from stscale.config import Run
from stscale.graphs import Graph
from stscale.graphs import load as load_graph
from stscale.models import METHODS, Method, Shape
from stscale.sampling import Sampler, make_sampler
from stscale.slices.features import FeatureStore
from stscale.training.fit import Task, fit
from stscale.training.inputs import DenseInputs, Inputs, SparseInputs, pca_inputs, propagated, smoothed_targets
from stscale.training.pair_draw import PairDraw
from stscale.training.standard import NAME, Standard

if TYPE_CHECKING:
    from numpy.typing import NDArray

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What rank 0 sends to the others; all paths are on a disk that every rank sees.

    Attributes
    ----------
    config
        Options of the run.
    features, graphs
        The feature store, and the graphs that the method reads.
    scratch
        Folder of the unpacked inputs; rank 0 fills it.
    checkpoints
        Folder of the checkpoints; rank 0 writes them.
    digest
        Of configuration and inputs.
    """

    config: Run
    features: Path
    graphs: tuple[Path, ...]
    scratch: Path
    checkpoints: Path
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A job made ready in this process.

    Attributes
    ----------
    job
        What it was made from.
    method
        The network; `run` trains it.
    task
        Sampler, inputs, seeds.
    """

    job: Job
    method: Method
    task: Task

    @property
    def inputs(self) -> Inputs:
        """What the network reads."""
        return self.task.inputs

    @property
    def sampler(self) -> Sampler:
        """Which spots meet."""
        return self.task.sampler

    def run(self, report: Report) -> list[dict[str, float]]:
        """Train, or go on from the last checkpoint; return the history (`fit`)."""
        return fit(self.method, self.task, self.job.config.budget, self.job.checkpoints, report)


def prepared(job: Job, device: torch.device, features: FeatureStore, graphs: Sequence[Graph]) -> Training:
    """Unpack the inputs (rank 0; the others wait and open them) and make network and sampler."""
    c = job.config
    recipe = METHODS[c.method]
    inputs, targets = _unpacked(job, features, graphs)
    shape = Shape(width=inputs.width, genes=features.g, slices=features.n_slices, spots=features.n)
    # one method, one seed: the initial weights are a function of the seed alone
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(c.seed)
        method = recipe.make(c, shape)
    part = (ranks.number(), ranks.count())
    sampler = make_sampler(
        graphs if recipe.views else graphs[0],
        features.offsets(),
        c.sample,
        hops=method.n_layers,
        seed=c.seed,
        part=part,
        fan_outs=(c.views.spatial_fan_out, c.views.feature_fan_out) if recipe.views else None,
    )
    counts = recipe.counts(c)
    # a gene that a slice lacks is no zero
    genes = counts or (not recipe.views and c.spotscape.input == "genes")
    mask: NDArray[Any] | None = features.mask() if genes and not features.mask().all() else None
    group, draws = features.slice(), recipe.pairs(c)
    task = Task(
        sampler=sampler,
        inputs=inputs,
        targets=targets,
        library=features.library() if counts else None,
        group=group,
        mask=mask,
        seed=c.seed,
        device=device,
        digest=job.digest,
        pairs=PairDraw(graphs[0], sampler, group, draws=draws, seed=c.seed, part=part) if draws else None,
    )
    return Training(job=job, method=method, task=task)


def _unpacked(job: Job, features: FeatureStore, graphs: Sequence[Graph]) -> tuple[Inputs, Inputs | None]:
    """Fill the files on rank 0; the others open them."""
    made: tuple[Inputs, Inputs | None] | None = None
    if ranks.number() == 0:
        recipe, c = METHODS[job.config.method], job.config
        inputs = network_inputs(c, features, graphs, job.scratch)
        targets: Inputs | None = None
        if recipe.counts(c):
            targets = SparseInputs(features, job.scratch / "counts", counts=True)
        elif not recipe.views and isinstance(inputs, DenseInputs) and c.spotscape.target_smooth:
            targets = smoothed_targets(inputs, graphs[0], job.scratch, rounds=c.spotscape.target_smooth)
        made = inputs, targets
    opened: tuple[Inputs, Inputs | None] = ranks.agreed(made)
    return opened


def network_inputs(
    config: Run, features: FeatureStore, graphs: Sequence[Graph], scratch: Path, *, run: Path | None = None
) -> Inputs:
    """Unpack what the network of a run reads of a feature store.

    Parameters
    ----------
    config
        Method and its options.
    features
        Of the run, or of other slices on the run's genes and components.
    graphs
        Of its spots, those the method reads.
    scratch
        Where the raw files go, and `standard.npz` where the method standardises.
    run
        Folder of the run whose mean and scale are used; default: they are measured here.

    Raises
    ------
    InputError
        If that run did not keep them.
    """
    recipe = METHODS[config.method]
    if recipe.views:
        components = pca_inputs(features, graphs[0], scratch, smooth=0)
        inputs = propagated(components, graphs, scratch / "propagated.f32")
        if recipe.standardize(config):
            standard = Standard.measure(inputs) if run is None else Standard.load(run / NAME)
            standard.save(scratch / NAME)
            standard.apply(inputs)
        return inputs
    if not config.trains:
        return pca_inputs(features, graphs[0], scratch, smooth=0)
    c = config.spotscape
    if c.input == "genes":
        return SparseInputs(features, scratch)
    return pca_inputs(features, graphs[0], scratch, smooth=c.smooth)


def follow(device: torch.device) -> Any:
    """Serve rank 0: train whenever it sends a job, until it sends something else, which is returned."""
    while True:
        order = ranks.agreed(None)
        if not isinstance(order, Job):
            return order
        graphs = [load_graph(path) for path in order.graphs]
        training = prepared(order, device, FeatureStore.open(order.features), graphs)
        training.run(lambda entry: None)
        del training
