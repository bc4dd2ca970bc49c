"""A small tissue with two graphs, counts of domains that differ, and the task of training on it."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stscale.config import Mhal as Config
from stscale.config import Sample
from stscale.graphs.build import feature_graph, knn_graph
from stscale.graphs.csr import Graph, block_diagonal
from stscale.models import Mhal
from stscale.sampling import make_sampler
from stscale.training import DenseInputs, Task
from stscale.training.inputs import propagated

OFFSETS = np.array([0, 60, 150, 200])
N, GENES, WIDTH = 200, 24, 6
ALL = ((-1, -1), (-1, -1))
SMALL: dict[str, Any] = {"hidden": 12, "latent": 8, "heads": 2, "decoder": 10, "scale_k": 3, "genes": 0}


class Counts:
    """Counts held in memory, (n, g)."""

    def __init__(self, x: np.ndarray) -> None:
        self.x, self.n, self.width = x.astype(np.float32), *x.shape

    def rows(self, ids: np.ndarray) -> np.ndarray:
        return self.x[ids]


def domains() -> np.ndarray:
    """Bands across each slice, (n,)."""
    return np.concatenate([np.arange(n) * 3 // n for n in np.diff(OFFSETS)])


def graphs() -> tuple[Graph, Graph]:
    rng = np.random.default_rng(0)
    sizes = np.diff(OFFSETS)
    # along x in order, so that domains are bands
    near = [knn_graph(np.stack([np.arange(n), 3 * rng.random(n)], axis=1), 5) for n in sizes]
    x = features()
    far = [feature_graph(x[lo:hi], 4) for lo, hi in pairwise(OFFSETS)]
    return block_diagonal(near), block_diagonal(far)


def features() -> np.ndarray:
    rng = np.random.default_rng(1)
    return (3 * rng.normal(size=(3, WIDTH))[domains()] + rng.normal(size=(N, WIDTH))).astype(np.float32)


def counts() -> np.ndarray:
    rng = np.random.default_rng(2)
    rate = rng.gamma(1.0, size=(3, GENES))[domains()] * rng.lognormal(0, 0.4, size=(N, 1))
    return rng.poisson(2 * rate) + (np.arange(GENES) == 0)


def made_task(
    folder: Path,
    *,
    part: tuple[int, int] = (0, 1),
    slices: int = 3,
    masked: bool = False,
    counted: bool = True,
    hops: int = 2,
) -> Task:
    folder.mkdir(exist_ok=True)
    plain = DenseInputs(folder / "x.f32", N, WIDTH)
    plain.array[:] = features()
    views, x = graphs(), counts()
    return Task(
        sampler=make_sampler(views, OFFSETS, Sample(batch_size=96, tile=8), hops=hops, seed=1, part=part, fan_outs=ALL),
        inputs=propagated(plain, views, folder / "propagated.f32"),
        targets=Counts(x) if counted else None,
        library=x.sum(axis=1).astype(np.float32) if counted else None,
        group=np.repeat(np.arange(3, dtype=np.int32), np.diff(OFFSETS)) if slices > 1 else np.zeros(N, np.int32),
        mask=np.random.default_rng(3).random((3, GENES)) < 0.8 if masked else None,
        seed=5,
        device=torch.device("cpu"),
        digest="mine",
    )


def network(options: dict[str, Any] | None = None, *, slices: int = 3, seed: int = 0) -> Mhal:
    torch.manual_seed(seed)
    return Mhal(2 * WIDTH, GENES, slices, 3, Config(**{**SMALL, **(options or {})}))
