"""Several processes as one training: joining the group that torchrun (or `--nproc`) describes, and starting it."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from stscale.errors import InputError

# The others wait in a broadcast while rank 0 reads slices and clusters latents.
PATIENCE = timedelta(days=7)


@contextmanager
def group() -> Iterator[None]:
    """Join the process group of the environment (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT), if there is one.

    Tensors on the CPU go through gloo, those on a GPU through NCCL.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def followers(count: int, command: Sequence[str]) -> Iterator[None]:
    """Make this process rank 0 of `count` on this machine and start the others; they end with it.

    Parameters
    ----------
    count
        Ranks; 1 starts nothing.
    command
        Arguments of `python` that make a process take part, the same for all.

    Raises
    ------
    InputError
        When there are fewer GPUs than ranks on a machine that has some.
    """
    if count < 2 or "RANK" in os.environ:  # under torchrun the others are there already
        yield
        return
    if torch.cuda.is_available() and torch.cuda.device_count() < count:
        raise InputError(f"--nproc {count} needs as many GPUs; this machine has {torch.cuda.device_count()}")
    own = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1"}
    own["MASTER_PORT"] = str(_free_port())
    before = {name: os.environ.get(name) for name in (*own, "RANK", "LOCAL_RANK")}
    os.environ.update(own, RANK="0", LOCAL_RANK="0")
    others: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(1, count):
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            others.append(subprocess.Popen([sys.executable, *command], env={**os.environ, **place}))
        yield
        for process in others:
            process.wait(timeout=60)
    finally:
        for process in others:
            process.kill()
            process.wait()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
