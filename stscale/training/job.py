"""One training as every rank sees it: from features and graph on disk to a trained method."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from stscale import ranks
from stscale.config import Run
from stscale.graphs import Graph
from stscale.graphs import load as load_graph
from stscale.models import METHODS, Method
from stscale.sampling import Sampler, make_sampler
from stscale.slices.features import FeatureStore
from stscale.training.fit import Task, fit
from stscale.training.inputs import Inputs, SparseInputs, pca_inputs, smoothed_targets

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
    features, graph
        The feature store and the spatial graph.
    scratch
        Folder of the unpacked inputs; rank 0 fills it.
    checkpoints
        Folder of the checkpoints; rank 0 writes them.
    digest
        Of configuration and inputs.
    """

    config: Run
    features: Path
    graph: Path
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
        return fit(self.method, self.task, self.job.config.train, self.job.checkpoints, report)


def prepared(job: Job, device: torch.device, features: FeatureStore, graph: Graph) -> Training:
    """Unpack the inputs (rank 0; the others wait and open them) and make network and sampler."""
    c = job.config
    inputs, targets = _unpacked(job, features, graph)
    # one method, one seed: the initial weights are a function of the seed alone
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(c.seed)
        method = METHODS[c.method](c, inputs.width, features.n_slices, features.n)
    part = (ranks.number(), ranks.count())
    sampler = make_sampler(graph, features.offsets(), c.sample, hops=method.n_layers, seed=c.seed, part=part)
    mask: NDArray[Any] | None = None
    if c.spotscape.input == "genes" and not features.mask().all():
        mask = features.mask()
    task = Task(
        sampler=sampler,
        inputs=inputs,
        targets=targets,
        group=features.slice(),
        mask=mask,
        seed=c.seed,
        device=device,
        digest=job.digest,
    )
    return Training(job=job, method=method, task=task)


def _unpacked(job: Job, features: FeatureStore, graph: Graph) -> tuple[Inputs, Inputs | None]:
    """Fill the files on rank 0; the others open them."""
    made: tuple[Inputs, Inputs | None] | None = None
    if ranks.number() == 0:
        c = job.config.spotscape
        if c.input == "genes":
            made = SparseInputs(features, job.scratch), None
        else:
            inputs = pca_inputs(features, graph, job.scratch, smooth=c.smooth)
            rounds = c.target_smooth
            made = inputs, smoothed_targets(inputs, graph, job.scratch, rounds=rounds) if rounds else None
    opened: tuple[Inputs, Inputs | None] = ranks.agreed(made)
    return opened


def follow(device: torch.device) -> Any:
    """Serve rank 0: train whenever it sends a job, until it sends something else, which is returned."""
    while True:
        order = ranks.agreed(None)
        if not isinstance(order, Job):
            return order
        training = prepared(order, device, FeatureStore.open(order.features), load_graph(order.graph))
        training.run(lambda entry: None)
        del training
