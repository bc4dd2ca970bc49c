"""What a service was started with."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One service.

    Attributes
    ----------
    slices
        Folders that jobs may read slices from.
    runs
        Folder that jobs write to, and read finished runs from.
    state
        Folder of the service's own: its database, and progress and errors of each job.
    memory
        Bytes that all jobs together may take.
    devices
        What each worker shows its jobs as ``CUDA_VISIBLE_DEVICES``; None for a worker without a GPU of its own.
    token
        What clients must show; None lets everybody in.
    retries
        Times that a job whose process was killed is started again.
    grace
        Seconds from SIGTERM to SIGKILL, for a checkpoint.
    threads
        CPU threads of a job that asks for none.
    """

    slices: tuple[Path, ...]
    runs: Path
    state: Path
    memory: int
    devices: tuple[str | None, ...]
    token: str | None
    retries: int = 2
    grace: float = 120.0
    threads: int = 1
