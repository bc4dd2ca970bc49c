"""`stscale serve`."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from stscale.errors import InputError

from .options import Debug, Quiet

NEEDED = ("fastapi", "uvicorn")


def serve(
    slices: Annotated[list[Path], typer.Option("--slices", help="Folder that jobs may read slices from; repeatable.")],
    runs: Annotated[Path, typer.Option("--runs", help="Folder of the run folders.")],
    state: Annotated[
        Path | None, typer.Option("--state", help="Folder of the service's own; else a hidden one in --runs.")
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to answer on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port; 0 takes a free one.", min=0, max=65535)] = 8000,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Jobs at a time; default: one per GPU, or one.", min=1)
    ] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", help="Memory of all jobs together, as 64G; default: all there is.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="File with the token; else it is in STSCALE_TOKEN.")
    ] = None,
    no_token: Annotated[
        bool, typer.Option("--no-token", help="Let in everybody on this machine; for loopback addresses alone.")
    ] = False,
    retries: Annotated[int, typer.Option("--retries", help="Times a killed job is started again.", min=0)] = 2,
    grace: Annotated[
        float, typer.Option("--grace", help="Seconds that a job gets for its checkpoint when it is stopped.", min=0.0)
    ] = 120.0,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Take jobs over HTTP and do them one after the other, one per GPU, as far as their plans fit into memory.

    Clients show a token (Authorization: Bearer …). Ended by a signal, running jobs write a checkpoint; the next start
    goes on with them, also after a crash. The page at / lists jobs, /openapi.json says what can be asked.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise InputError(f"stscale serve needs {' and '.join(missing)}: pip install 'stscale[serve]'")
    from stscale.serving import serve as answer
    from stscale.serving.run import settings_of, token_of
    from stscale.size import said

    token = token_of(token_file, host=host, nobody=no_token)
    settings = settings_of(
        slices=slices,
        runs=runs,
        state=state,
        token=token,
        memory=memory,
        workers=workers,
        retries=retries,
        grace=grace,
    )

    def ready(address: str) -> None:
        kinds = ", ".join("CPU" if d is None else f"GPU {d}" for d in settings.devices)
        if not quiet:
            typer.echo(f"{address} (workers: {kinds}; {said(settings.memory)} of memory)")

    answer(settings, host=host, port=port, ready=ready)
