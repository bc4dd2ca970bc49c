"""The connection to a Dask distributed cluster, and what must be true of one before a run uses it."""

import logging
import os
import platform
import re
import secrets
import socket
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from stscale import __version__
from stscale.compute import Compute, current_client
from stscale.errors import InputError

if TYPE_CHECKING:
    from distributed import Client

TIMEOUT = 10.0  # seconds for a connection to be made
# What computes, or carries what is computed: other versions may give other bits, or fail half-way.
PACKAGES = ("anndata", "cloudpickle", "dask", "distributed", "h5py", "numpy", "pandas", "scipy", "torch", "zarr")


@contextmanager
def cluster(address: str | None, *, threads: int) -> Iterator[Compute]:
    """Connect to the scheduler at `address` and make it the place where Dask computes; disconnect in the end.

    Parameters
    ----------
    address
        ``tcp://host:port`` or ``tls://host:port``; None: no cluster, threads of this process.
    threads
        Threads of this process, for None.

    Yields
    ------
    Compute
        What the stages are told.

    Raises
    ------
    InputError
        If `address` is none, nothing answers there within ten seconds, it has no workers, or scheduler or
        workers run other versions than this process.
    """
    if address is None:
        yield Compute(scheduler="threads", workers=threads)
        return
    if not re.fullmatch(r"(tcp|tls)://(\[[0-9a-fA-F:]+\]|[^\s/:]+):\d{1,5}/?", address):
        raise InputError(f"scheduler {address!r} is no address; expected tcp://host:port, for example tcp://host:8786")
    import dask.config
    import distributed  # noqa: F401  # brings its own settings, which must be there before one is changed

    # a function with the tables of many slices is sent once, which is what Dask would warn about
    with _without_logs(), dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 GiB"}):
        client = _connected(address)
        try:
            _check_versions(client, address)
            yield Compute(scheduler=None, workers=sum(client.nthreads().values()))
        finally:
            client.close()


def check_shared(folder: Path, slices: Sequence[Path]) -> None:
    """Make sure that every worker of the current cluster sees the files of a run as this process does.

    Parameters
    ----------
    folder
        The run folder, absolute; each worker must be able to write there.
    slices
        The inputs, absolute.

    Raises
    ------
    InputError
        Naming the first worker and what it cannot read or write.
    """
    client = current_client()
    if client is None:
        return
    token = secrets.token_hex(16)
    # a folder of the same name on a worker's own disk has no such file
    probe = folder / f".shared-{token}"
    probe.write_text(token, encoding="utf-8")
    try:
        sizes = {str(path): path.stat().st_size if path.is_file() else None for path in slices}
        found = client.run(_lacks, str(probe), token, sizes, on_error="return")
    finally:
        probe.unlink(missing_ok=True)
    for worker, lack in found.items():
        if lack is not None:
            raise InputError(
                f"worker {worker} {lack}; a cluster needs the run folder and the slices on a file system that all "
                "its workers share, at the same paths"
            )


@contextmanager
def _without_logs() -> Iterator[None]:
    """Keep the client's own log from the terminal: what stops a run is raised, what does not is no news."""
    levels = {name: logging.getLogger(name).level for name in ("distributed", "distributed.client")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _connected(address: str) -> "Client":
    from distributed import Client
    from distributed.versions import VersionMismatchWarning

    with warnings.catch_warnings():
        # refused below, in one line that says what differs
        warnings.simplefilter("ignore", VersionMismatchWarning)
        try:
            return Client(address, timeout=TIMEOUT, set_as_default=True)
        except (OSError, ValueError) as error:
            raise InputError(
                f"no Dask scheduler answers at {address} within {TIMEOUT:.0f} s; start one with `dask scheduler`, "
                "or leave --scheduler out"
            ) from error


def _check_versions(client: "Client", address: str) -> None:
    if not client.nthreads():
        raise InputError(f"the Dask scheduler at {address} has no workers; start some with `dask worker {address}`")
    try:
        there = {f"the scheduler {address}": client.run_on_scheduler(_versions)}
    except Exception as error:  # whatever the other environment makes of a function of this package
        raise InputError(_unusable(f"the scheduler {address}", error)) from error
    there |= {f"worker {name}": found for name, found in client.run(_versions, on_error="return").items()}
    here = _versions()
    for name, found in there.items():
        if not isinstance(found, dict):
            raise InputError(_unusable(name, found))
        for package, wanted in here.items():
            if found.get(package) != wanted:
                raise InputError(
                    f"{name} has {package} {found.get(package)}, this process {wanted}; give all the same environment"
                )


def _unusable(name: str, error: object) -> str:
    return f"{name} cannot run stscale {__version__} ({error}); give it the environment of this process"


def _versions() -> dict[str, str | None]:
    """Return what must be the same everywhere: Python, this package, and what it computes with."""
    found: dict[str, str | None] = {"python": ".".join(platform.python_version_tuple()[:2]), "stscale": __version__}
    for name in PACKAGES:
        try:
            # without the local part: builds for CPU and GPU are the same version
            found[name] = version(name).partition("+")[0]
        except PackageNotFoundError:
            found[name] = None
    return found


def _lacks(probe: str, token: str, sizes: dict[str, int | None]) -> str | None:
    """Say what this worker cannot do with the files of a run; None when nothing is in the way."""
    folder = Path(probe).parent
    own = folder / f"{Path(probe).name}-{socket.gethostname()}-{os.getpid()}"
    try:
        if Path(probe).read_text(encoding="utf-8") != token:
            return f"sees another folder at {folder}"
    except OSError as error:
        return f"cannot read the run folder {folder} ({error.strerror})"
    try:
        own.touch()
        own.unlink()
    except OSError as error:
        return f"cannot write to the run folder {folder} ({error.strerror})"
    for path, size in sizes.items():
        if not os.access(path, os.R_OK):
            return f"cannot read {path}"
        if size is not None and Path(path).stat().st_size != size:
            return f"sees another file at {path}"
    return None
