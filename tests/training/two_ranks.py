"""What one rank computes in `test_distributed.py`; run as a script in a process of its own."""

import pickle
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stscale import ranks
from stscale.config import Sample, Train
from stscale.config import Spotscape as Config
from stscale.config import Stmfg as StmfgConfig
from stscale.graphs.build import knn_graph
from stscale.graphs.csr import block_diagonal
from stscale.models import Method, Spotscape, Stmfg
from stscale.sampling import make_sampler
from stscale.training import DenseInputs, Task, fit
from stscale.training.distributed import shared
from stscale.training.fit import _prepared
from stscale.training.pair_draw import PairDraw

OFFSETS = np.array([0, 70, 150, 200])
G = 8
MASK = np.random.default_rng(1).random((3, G)) < 0.8


def made_task(folder: Path, part: tuple[int, int], *, masked: bool) -> Task:
    rng = np.random.default_rng(0)
    graph = block_diagonal([knn_graph(rng.random((n, 2)), 4) for n in np.diff(OFFSETS)])
    inputs = DenseInputs(folder / f"x-{part[0]}.f32", 200, G)
    inputs.array[:] = rng.normal(size=(200, G))
    return Task(
        sampler=make_sampler(graph, OFFSETS, Sample(batch_size=96, tile=8), hops=2, seed=1, part=part),
        inputs=inputs,
        targets=None,
        library=None,
        group=np.repeat(np.arange(3, dtype=np.int32), np.diff(OFFSETS)),
        mask=MASK if masked else None,
        seed=5,
        device=torch.device("cpu"),
        digest="mine",
    )


def made_view_task(folder: Path, part: tuple[int, int], *, masked: bool) -> Task:
    """Two graphs with all their neighbours, counts, and pairs of neighbours and others."""
    rng = np.random.default_rng(0)
    sizes = np.diff(OFFSETS)
    graphs = [block_diagonal([knn_graph(rng.random((n, 2)), k) for n in sizes]) for k in (4, 3)]
    inputs, counts = (DenseInputs(folder / f"{name}-{part[0]}.f32", 200, G) for name in ("views", "counts"))
    inputs.array[:] = rng.normal(size=(200, G))
    counts.array[:] = rng.poisson(2.0, size=(200, G))
    sample = Sample(batch_size=96, tile=8)
    sampler = make_sampler(graphs, OFFSETS, sample, hops=1, seed=1, part=part, fan_outs=((-1,), (-1,)))
    group = np.repeat(np.arange(3, dtype=np.int32), sizes)
    return Task(
        sampler=sampler,
        inputs=inputs,
        targets=counts,
        library=counts.array.sum(axis=1) + 1,
        group=group,
        mask=MASK if masked else None,
        seed=5,
        device=torch.device("cpu"),
        digest="mine",
        pairs=PairDraw(graphs[0], sampler, group, draws=5, seed=5, part=part),
    )


def made_method(case: dict[str, Any]) -> Method:
    torch.manual_seed(0)
    options = case["options"]
    if case.get("method") == "stmfg":
        return Stmfg(G, G, 3, 200, StmfgConfig(hidden=10, latent=4, decoder=6, scale_k=3, **options))
    return Spotscape(G, 3, 3, Config(hidden=12, latent=4, scale_k=3, warmup=0.0, refresh=2, **options), 0)


def steps(folder: Path, part: tuple[int, int], case: dict[str, Any]) -> dict[str, Any]:
    """Terms and gradients of a few steps of plain descent, in float64 where the code lets it."""
    make = made_view_task if "method" in case else made_task
    task = make(folder, part, masked=case["masked"])
    method = made_method(case)
    terms_of = shared(method)
    found = []
    for step in range(4):
        batch = _prepared(task, step, 4)
        terms = terms_of(batch)
        method.zero_grad(set_to_none=True)
        loss = torch.stack([method.weights[k] * v for k, v in terms.items()]).sum()
        loss.backward()
        grads = {k: p.grad.clone() for k, p in method.named_parameters() if p.grad is not None}
        found.append({"terms": {k: v.item() for k, v in terms.items()}, "loss": loss.item(), "grads": grads})
        with torch.no_grad():
            for p in method.parameters():
                if p.grad is not None:
                    p -= 0.05 * p.grad
    return {"steps": found, "buffers": dict(method.named_buffers())}


def whole(folder: Path, part: tuple[int, int]) -> dict[str, Any]:
    """A short training by the loop itself."""
    task = made_task(folder, part, masked=False)
    torch.manual_seed(0)
    method = Spotscape(G, 3, 3, Config(hidden=12, latent=4, scale_k=3, warmup=0.3), 0)
    history = fit(method, task, Train(steps=12, checkpoint_every=5), folder / "checkpoints", lambda _: None)
    return {"history": history, "state": method.state_dict()}


def main(folder: Path, rank: int, count: int, cases: list[dict[str, Any]]) -> None:
    """Compute all cases and leave the results in a file."""
    if count > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=count, timeout=timedelta(seconds=60)
        )
    assert (ranks.number(), ranks.count()) == (rank, count)
    part = (rank, count)
    own = folder / f"rank-{rank}-of-{count}"
    own.mkdir()
    found = [steps(own, part, c) for c in cases]
    shared_folder = folder / f"of-{count}"
    shared_folder.mkdir(exist_ok=True)
    torch.save({"cases": found, "whole": whole(shared_folder, part)}, own / "found.pt")
    if count > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), pickle.loads(Path(sys.argv[4]).read_bytes()))
