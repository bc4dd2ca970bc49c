"""Training and embedding as stages of a run."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stscale import __version__, ranks
from stscale.compute import Compute
from stscale.config import Run
from stscale.device import peak_vram, pick_device
from stscale.errors import InputError
from stscale.memory import let_go
from stscale.options import digest
from stscale.rundir import RunFolder
from stscale.telling import Observer, Telling

if TYPE_CHECKING:
    from stscale.graphs import Graph
    from stscale.models import Method
    from stscale.slices.features import FeatureStore

# Rows of the latents copied at a time.
ROWS = 65_536
# Files of the graphs that two-view methods read.
VIEWS = ("spatial.npz", "feature.npz")


class Learning(Telling):
    """The stages that make latents; `digest` grows with every stage, `busy` is true while other ranks take part."""

    def __init__(self, run: RunFolder, paths: list[Path], config: Run, observer: Observer, compute: Compute) -> None:
        super().__init__(run, observer)
        self.paths = paths
        self.config = config
        self.compute = compute
        self.digest, self.busy = "", False

    def _chain(self, *parts: Any) -> str:
        """Extend the digest: a stage depends on its own options and on all stages before it."""
        self.digest = digest([self.digest, *parts])
        return self.digest

    def train_and_embed(self, features: "FeatureStore", graphs: "Sequence[Graph]") -> NDArray[Any]:
        """Train from the last checkpoint on, then embed every spot; (n_fit, d) float32 mapped from disk.

        A method that trains nothing has the second stage alone.
        """
        from stscale.models import METHODS

        c = self.config
        if c.domains.k is not None and c.domains.k > features.n:
            raise InputError(f"domains.k = {c.domains.k} is more than the {features.n} spots with counts; lower it")
        latents = self.run.file("latents.npy")
        if not c.trains:
            return self._untrained(features, graphs, self._chain(c.digest("method", c.method)), latents)
        sections = ("method", "seed", "sample", c.method, "train")
        now = self._chain(c.digest(*sections), METHODS[c.method].expects(c))
        if self.run.finished("train", now) and self.run.finished("embed", now, latents):
            self.skip("train")
            self.skip("embed")
            return np.load(latents, mmap_mode="r")
        return self._train(features, graphs, now, latents)

    def _train(self, features: "FeatureStore", graphs: "Sequence[Graph]", now: str, latents: Path) -> NDArray[Any]:
        from stscale.graphs.nearest import chosen
        from stscale.training import checkpoint, embed, total_steps
        from stscale.training.job import Job, prepared

        c, run = self.config, self.run
        device = pick_device(c.device)
        scratch, folder = run.file("scratch").absolute(), run.file("checkpoints").absolute()
        shutil.rmtree(scratch, ignore_errors=True)
        checkpoint.claim(folder, now)
        job = Job(
            config=c,
            features=features.path.absolute(),
            graphs=tuple(run.file(f).absolute() for f in (VIEWS if len(graphs) > 1 else (c.graph.file,))),
            scratch=scratch,
            checkpoints=folder,
            digest=now,
        )
        self.observer({"event": "stage", "stage": "train", "state": "start"})
        with run.stage("train", now) as found, peak_vram(device, found):
            self.busy = True  # from here on the other ranks take part in every step
            ranks.agreed(job)
            training = prepared(job, device, features, graphs)
            batches = training.sampler.batches_per_epoch
            steps = total_steps(c.budget, batches)
            if training.task.pairs is not None and len(few := training.task.pairs.rarely_across()):
                names = ", ".join(features.slice_names[i] for i in few[:3]) + (", …" if len(few) > 3 else "")
                text = (
                    f"batches hold fewer than two tiles of {len(few)} slices ({names}): the spatial regularisation "
                    "sees few pairs across them; raise sample.batch_size or lower sample.tile"
                )
                self.tell("note", text=text)
            found.update(steps=steps, epochs=steps / batches, device=str(device), ranks=ranks.count())
            found["search"] = chosen(device)
            if device.type == "cuda":
                self.tell("note", text=f"training on {device}; neighbours by {found['search']}")
            found["history"] = training.run(lambda e: self.tell("step", **e))
            self.busy = False
        self.observer({"event": "stage", "stage": "embed", "state": "start"})
        with run.stage("embed", now) as found, peak_vram(device, found):
            z = embed(training.method, training.inputs, graphs, scratch, device=device, compute=self.compute)
            self._save_latents(z.array, latents)
            self._keep_standard(scratch)
            self._save_model(training.method, now)
        return np.load(latents, mmap_mode="r")

    def _untrained(self, features: "FeatureStore", graphs: "Sequence[Graph]", now: str, latents: Path) -> NDArray[Any]:
        from stscale.models import METHODS, Shape
        from stscale.training import embed
        from stscale.training.job import network_inputs

        c, run = self.config, self.run
        if run.finished("embed", now, latents):
            self.skip("embed")
            return np.load(latents, mmap_mode="r")
        device, scratch = pick_device(c.device), run.file("scratch").absolute()
        shutil.rmtree(scratch, ignore_errors=True)
        self.observer({"event": "stage", "stage": "embed", "state": "start"})
        # a network that an earlier method left here is no part of this run
        with run.stage("embed", now, undoes=("train",)) as found, peak_vram(device, found):
            run.file("model.pt").unlink(missing_ok=True)
            inputs = network_inputs(c, features, graphs, scratch)
            shape = Shape(width=inputs.width, genes=features.g, slices=features.n_slices, spots=features.n)
            method = METHODS[c.method].make(c, shape)
            z = embed(method, inputs, graphs, scratch, device=device, remeasure=False, compute=self.compute)
            self._save_latents(z.array, latents)
        return np.load(latents, mmap_mode="r")

    def _save_latents(self, z: NDArray[Any], path: Path) -> None:
        from stscale.atomic import atomic_path

        with atomic_path(path) as part:
            out = np.lib.format.open_memmap(part, mode="w+", dtype=z.dtype, shape=z.shape)
            for lo in range(0, len(z), ROWS):
                out[lo : lo + ROWS] = z[lo : lo + ROWS]
                let_go(z)
                let_go(out)

    def _keep_standard(self, scratch: Path) -> None:
        from stscale.atomic import atomic_path
        from stscale.training.standard import NAME

        self.run.file(NAME).unlink(missing_ok=True)  # of an earlier training with other options
        if (scratch / NAME).is_file():
            with atomic_path(self.run.file(NAME)) as part:
                shutil.copyfile(scratch / NAME, part)

    def _save_model(self, method: "Method", now: str) -> None:
        import torch

        from stscale.atomic import atomic_path

        with atomic_path(self.run.file("model.pt")) as part:
            torch.save({"version": __version__, "digest": now, "state": method.state_dict()}, part)
