"""What one rank computes of MHAL in `test_mhal.py`; run as a script in a process of its own."""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from made_two_views import made_task, network

from stscale.training.distributed import shared
from stscale.training.fit import _prepared


def steps(folder: Path, part: tuple[int, int]) -> dict[str, Any]:
    """Terms and gradients of a few steps of plain descent."""
    task = made_task(folder / f"rank-{part[0]}-of-{part[1]}", part=part, masked=True)
    model = network({"w_scale": 1.0, "genes": 9})
    terms_of = shared(model)
    found = []
    for step in range(3):
        terms = terms_of(_prepared(task, step, 3))
        model.zero_grad(set_to_none=True)
        torch.stack([model.weights[k] * v for k, v in terms.items()]).sum().backward()
        grads = {k: p.grad.clone() for k, p in model.named_parameters() if p.grad is not None}
        found.append({"terms": {k: v.item() for k, v in terms.items()}, "grads": grads})
        with torch.no_grad():
            for p in model.parameters():
                if p.grad is not None:
                    p -= 0.05 * p.grad
    return {"steps": found, "buffers": dict(model.named_buffers())}


if __name__ == "__main__":
    torch.set_num_threads(1)
    where, rank, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{where}/meet", rank=rank, world_size=count, timeout=timedelta(seconds=60)
    )
    torch.save(steps(where, (rank, count)), where / f"found-{rank}.pt")
    torch.distributed.destroy_process_group()
