"""The training loop: one, straight, and it names no method."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stscale import ranks, stopping
from stscale.config import Train
from stscale.errors import StscaleError
from stscale.models.edges import layer_edges, on_device
from stscale.models.method import Method, Minibatch
from stscale.sampling import Batch, Sampler
from stscale.training import checkpoint
from stscale.training.distributed import computing, shared
from stscale.training.inputs import Inputs
from stscale.training.pair_draw import PairDraw
from stscale.training.prefetch import prefetched


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is trained on.

    Attributes
    ----------
    sampler, inputs
        Which spots meet, and their features.
    targets
        What is reconstructed; None: the input itself.
    library
        (n,) float32 counts of each spot, where the targets are counts; else None.
    group
        (n,) int32 slice of each spot.
    mask
        (s, g) bool, genes measured per slice; None when all are.
    seed
        With the step it fixes every random draw.
    device
        Where the network runs.
    digest
        Of configuration and inputs: a checkpoint of another one is refused.
    pairs
        Draws neighbours and others among the seeds, where the method wants them.
    """

    sampler: Sampler
    inputs: Inputs
    targets: Inputs | None
    library: NDArray[np.float32] | None
    group: NDArray[np.int32]
    mask: NDArray[np.bool_] | None
    seed: int
    device: torch.device
    digest: str
    pairs: PairDraw | None = None


def total_steps(config: Train, batches_per_epoch: int) -> int:
    """Return the fixed budget in steps.

    Raises
    ------
    ValueError
        When there is none; `Run.budget` fills in that of the method.
    """
    if config.epochs:
        return config.epochs * batches_per_epoch
    if config.steps is None:
        raise ValueError("the options of training hold neither steps nor epochs; take those of Run.budget")
    return config.steps


@stopping.deferred()
def fit(
    method: Method, task: Task, config: Train, checkpoints: Path, report: Callable[[dict[str, Any]], None]
) -> list[dict[str, float]]:
    """Train for the fixed budget, going on from the newest checkpoint.

    The loss is the sum of the method's named terms, weighted by `method.weights`. Batches, augmentations and
    the method's own draws are functions of (seed, step), so an interrupted training that goes on ends with the
    same parameters, bit by bit on the CPU with the same number of threads.

    Parameters
    ----------
    method
        Trained in place; moved to the device.
    task
        Data and seeds.
    config
        Budget, learning rate, checkpoints.
    checkpoints
        Folder of the checkpoints.
    report
        Called every `log_every` steps with step, total, loss, terms and seconds per step.

    Returns
    -------
    list of dict
        History: step, loss and every term, one entry per report.

    Raises
    ------
    StscaleError
        When the loss is not finite (with the terms and what to change), or the checkpoint is not of this run.
    Stopped
        When this rank or another was asked to stop: after the step, and after a checkpoint.
    """
    total = total_steps(config, task.sampler.batches_per_epoch)
    method.to(task.device).train()
    adam = torch.optim.Adam(method.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    average = Average(method, math.floor(total * (1 - config.average)) if config.average else total)
    history: list[dict[str, float]] = []
    start = 0
    newest = checkpoint.latest(checkpoints)
    if newest is not None:
        start, state = checkpoint.load(newest, task.digest, task.device)
        method.load_state_dict(state["method"])
        adam.load_state_dict(state["adam"])
        average.load_state_dict(state["average"])
        history = state["history"]
    terms_of = shared(method)
    clock = time.perf_counter()
    for batch, step in prefetched(lambda s: (_prepared(task, s, total), s), range(start, total), config.prefetch):
        try:
            with computing(config.precision, task.device):
                terms = terms_of(batch)
        except StscaleError as error:  # a search over latents that are not finite, for one
            raise StscaleError(f"training stopped at step {step + 1}: {error}") from error
        loss = torch.stack([method.weights[name] * value for name, value in terms.items()]).sum()
        if not torch.isfinite(loss):
            raise StscaleError(_diverged(step, terms))
        adam.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        average.update(step)
        done = step + 1
        if done % config.log_every == 0 or done == total:
            entry = {"step": float(done), "loss": loss.item(), **{k: v.item() for k, v in terms.items()}}
            history.append(entry)
            rate = (time.perf_counter() - clock) / (done - start)
            report({**entry, "step": done, "total": total, "seconds_per_step": rate})
        stop = stopping.agreed()
        if ranks.number() == 0 and (stop or done % config.checkpoint_every == 0 or done == total):
            state = {"method": method.state_dict(), "adam": adam.state_dict(), "history": history}
            checkpoint.save(checkpoints, done, {**state, "average": average.state_dict()}, task.digest)
        if stop:
            break  # leaves the loop's iterator behind, and with it the thread that prepares batches
    stopping.check()
    average.apply()
    return history


class Average:
    """The mean of the parameters over the steps from `first` on (Polyak averaging).

    Parameters
    ----------
    method
        Whose parameters are averaged.
    first
        First step that counts; none counts when it is never reached.
    """

    def __init__(self, method: Method, first: int) -> None:
        self._parameters = dict(method.named_parameters())
        self._first = first
        self._count = 0
        self._mean: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the parameters after `step` into the mean."""
        if step < self._first:
            return
        self._count += 1
        for name, parameter in self._parameters.items():
            if self._count == 1:
                self._mean[name] = parameter.detach().clone()
            else:
                self._mean[name].lerp_(parameter, 1 / self._count)

    @torch.no_grad()
    def apply(self) -> None:
        """Put the mean in place of the parameters."""
        for name, mean in self._mean.items():
            self._parameters[name].copy_(mean)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"count": self._count, "mean": self._mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what a checkpoint kept."""
        self._count, self._mean = state["count"], state["mean"]


def _prepared(task: Task, step: int, total: int) -> Minibatch:
    batch: Batch = task.sampler.batch(step)
    group = task.group[batch.seeds]
    generator = torch.Generator(device=task.device)
    generator.manual_seed(int(np.random.SeedSequence([task.seed, step]).generate_state(1, np.uint64)[0] >> 1))
    mask = None if task.mask is None else on_device(task.mask[group], task.device)
    x = on_device(task.inputs.rows(batch.nodes), task.device)
    target = x[: batch.n_seeds]
    if task.targets is not None:
        target = on_device(task.targets.rows(batch.seeds), task.device)
    edges = layer_edges(batch, task.device)
    for hop in edges[1:]:  # the backward pass needs it; the first layer's input has no gradient
        for e in hop:
            _ = e.pattern.transposed
    return Minibatch(
        x=x,
        target=target,
        library=None if task.library is None else on_device(task.library[batch.seeds], task.device),
        edges=edges,
        group=on_device(group.astype(np.int64), task.device),
        tile=on_device(task.sampler.tile_of(batch.seeds), task.device),
        tiles=torch.tensor(task.sampler.tiles, device=task.device),
        mask=mask,
        step=step,
        progress=step / total,
        generator=generator,
        pairs=None if task.pairs is None else task.pairs.at(step, task.device),
    )


def _diverged(step: int, terms: dict[str, Tensor]) -> str:
    values = ", ".join(f"{name} {value.item():.4g}" for name, value in terms.items())
    return (
        f"the loss is not finite at step {step + 1} ({values}): lower train.lr, "
        "or look for spots with extreme values in the input; the last checkpoint is kept"
    )
