"""What a service has to give to its jobs."""

import os
import subprocess
import sys

from stscale.errors import InputError

COUNT = "import torch; print(torch.cuda.device_count())"


def gpus() -> list[str]:
    """Return the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them.

    Counted in a process of its own: torch and the driver would stay with the service.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named == "":
        return []
    done = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, check=False)
    lines = done.stdout.split()
    if done.returncode or not lines:
        raise RuntimeError(f"GPUs could not be counted: {done.stderr.strip()[-300:]}")
    count = int(lines[-1])
    return [str(k) for k in range(count)] if named is None else [name.strip() for name in named.split(",")][:count]


def devices(workers: int | None) -> tuple[str | None, ...]:
    """Return what each worker shows its jobs: a GPU each, or None where there is none.

    Parameters
    ----------
    workers
        How many; default: one per GPU, or one.

    Raises
    ------
    InputError
        For more workers than GPUs, if there are any: two jobs would share the memory of one.
    """
    found = gpus()
    if not found:
        return (None,) * (workers or 1)
    if workers is not None and workers > len(found):
        raise InputError(f"--workers {workers}: this machine has {len(found)} GPUs, and a job takes one; lower it")
    return tuple(found[: workers or len(found)])
