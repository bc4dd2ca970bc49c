"""From options to a server that answers."""

import ipaddress
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn

from stscale.errors import InputError
from stscale.rundir import check_writable
from stscale.serving.app import create_app
from stscale.serving.gpus import devices
from stscale.serving.service import Service
from stscale.serving.settings import Settings
from stscale.size import bytes_of
from stscale.threads import available_cores

VARIABLE = "STSCALE_TOKEN"
SHORTEST = 16
"""Characters of a token, at the least."""

STATE = ".stscale-serve"
"""Folder of the service's own in that of the runs."""

PATIENCE = 3
"""Seconds for open connections when the service ends."""


def token_of(file: Path | None, *, host: str, nobody: bool) -> str | None:
    """Return the token, from a file or the environment.

    Parameters
    ----------
    file
        Where it is; its first and last white space is dropped.
    host
        Address that the service answers on.
    nobody
        Whether it was said that there shall be none.

    Raises
    ------
    InputError
        When there is none and it is not asked for, on an address of this machine alone; or when it is short.
    """
    try:
        text = os.environ.get(VARIABLE, "") if file is None else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--token-file {file} cannot be read: {error}") from error
    token = text.strip()
    if nobody:
        if token or file is not None:
            raise InputError(f"--no-token, and there is one in {file or VARIABLE}; give one of the two")
        if not loopback(host):
            raise InputError(f"--no-token and --host {host} would let everybody in; it needs --host 127.0.0.1")
        return None
    if not token:
        raise InputError(
            f"no token: set {VARIABLE}, or give --token-file (make one: openssl rand -hex 32); on 127.0.0.1 "
            "--no-token does without"
        )
    if len(token) < SHORTEST:
        raise InputError(f"the token has {len(token)} characters; give {SHORTEST} or more (openssl rand -hex 32)")
    return token


def loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def settings_of(
    *,
    slices: Sequence[Path],
    runs: Path,
    state: Path | None,
    token: str | None,
    memory: str | None,
    workers: int | None,
    retries: int,
    grace: float,
) -> Settings:
    """Look at folders and machine, and make those folders that may be missing.

    Parameters
    ----------
    slices, runs, state, token, memory, workers, retries, grace
        As `Settings`; `state` is by default a hidden folder in `runs`, `memory` what the machine has, `workers` one
        per GPU.

    Raises
    ------
    InputError
        When folders are missing or cannot be written to, or there is less memory or fewer GPUs than asked for.
    """
    from stscale.planning.machine import total_memory

    for path in slices:
        if not path.is_dir():
            raise InputError(f"--slices {path} is no folder")
    there = total_memory()
    wanted = there if memory is None else bytes_of(memory, "--memory")
    state = state or runs / STATE
    for path in (runs, state):
        if path.is_file():
            raise InputError(f"{path} is a file; give a folder")
        check_writable(path)
        path.mkdir(parents=True, exist_ok=True)
    if any(state.resolve().is_relative_to(path.resolve()) for path in slices):
        raise InputError(f"--state {state} lies in a folder of slices, which clients may read; give another one")
    workers_ = devices(workers)
    return Settings(
        slices=tuple(path.resolve() for path in slices),
        runs=runs.resolve(),
        state=state.resolve(),
        memory=min(wanted, there),
        devices=workers_,
        token=token,
        retries=retries,
        grace=grace,
        threads=max(1, available_cores() // len(workers_)),
    )


def serve(settings: Settings, *, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Answer until a signal ends it; running jobs are stopped with a checkpoint, for the next start.

    Parameters
    ----------
    settings
        Of the service.
    host, port
        Where it answers; port 0 takes a free one.
    ready
        Called with the address once it answers there.

    Raises
    ------
    InputError
        When the address cannot be had, or another service has the folder.
    """
    try:
        listener = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, reuse_port=False
        )
    except OSError as error:
        raise InputError(f"cannot listen on {host}, port {port}: {error.strerror}; give another --port") from error
    service = Service(settings)
    with listener:
        service.open()  # before the server, whose own errors are no lines for a person
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listener.getsockname()[1]}"
        server = _Server(
            uvicorn.Config(
                create_app(service),
                log_level="warning",
                server_header=False,
                timeout_graceful_shutdown=PATIENCE,
                ws="none",
            ),
            lambda: ready(address),
        )
        service.leaving = lambda: server.should_exit
        try:
            server.run(sockets=[listener])
        finally:
            service.close()


class _Server(uvicorn.Server):
    """Says when it answers."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self._ready()
