"""Where the stages compute: threads of this process, or a Dask distributed cluster."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from stscale.errors import StscaleError

if TYPE_CHECKING:
    from distributed import Client, Future

Scheduler = Literal["threads", "synchronous"]
Item = TypeVar("Item")
Result = TypeVar("Result")

PATIENCE = 120.0  # seconds without any worker until a run gives up


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """Where the stages of a run compute. It has no influence on any result.

    Attributes
    ----------
    scheduler
        ``"threads"`` or ``"synchronous"``: in this process; None: on the current client's cluster.
    workers
        Tasks that run side by side: threads of this process, or of all workers together.
    """

    scheduler: Scheduler | None = "threads"
    workers: int = 2

    @property
    def remote(self) -> bool:
        """Whether tasks run in other processes."""
        return self.scheduler is None


def current_client() -> "Client | None":
    """Return the connected client that tasks go to, None when there is none."""
    from distributed.client import default_client

    try:
        return default_client()
    except ValueError:
        return None


class Tasks:
    """Submits blocks of one function to a cluster, which gets the function once.

    The function is itself the result of a task, held by every worker: a worker that is lost takes nothing along
    that its cluster could not compute again.

    Parameters
    ----------
    client
        Connected.
    function
        Pure function of one block; what it carries may be large.
    """

    def __init__(self, client: "Client", function: Callable[[Any], Any]) -> None:
        from distributed.protocol.pickle import dumps, loads

        self.client = client
        with _said():
            self._held = client.submit(loads, dumps(function), pure=False)
            _wait(client, self._held)
            # Only a head start: without a copy of its own a worker would get its blocks by work stealing, later.
            # Workers that come or go while it is made cost no more than that.
            with suppress(OSError, KeyError, ValueError):
                client.replicate([self._held])

    def one(self, block: object) -> "Future[Any]":
        """Submit a block."""
        return self.client.submit(_call, self._held, block, pure=False)

    def tree(self, blocks: Sequence[object], combine: Callable[[Any], Any], fan_in: int) -> "Future[Any]":
        """Submit blocks and the combination of their results, `fan_in` at a time."""
        nodes = [self.one(block) for block in blocks]
        while len(nodes) > 1:
            nodes = [
                self.client.submit(combine, nodes[k : k + fan_in], pure=False) for k in range(0, len(nodes), fan_in)
            ]
        return nodes[0]


def in_order(
    client: "Client", submit: Callable[[Item], "Future[Any]"], items: Iterable[Item], *, ahead: int
) -> Iterator[Any]:
    """Yield the results of all items in order while up to `ahead` of them are under way or wait to be taken.

    An error of a task is raised once no other submitted task runs any more, so that none writes to a folder that
    the caller then removes.

    Parameters
    ----------
    client
        Connected.
    submit
        Starts one item.
    items
        Any number.
    ahead
        Tasks that are submitted and not yet taken, at least 1.

    Yields
    ------
    Any
        What each task returned.

    Raises
    ------
    StscaleError
        When a task took down several workers, or the cluster is gone. Other errors of a task come as they are.
    """
    pending: deque[Future[Any]] = deque()
    try:
        with _said():
            for item in items:
                pending.append(submit(item))
                if len(pending) >= ahead:
                    # nothing else holds the future: its result leaves the cluster as soon as it is here
                    yield _result(client, pending.popleft())
            while pending:
                yield _result(client, pending.popleft())
    except Exception:
        _settle(client, pending)
        raise


def _call(function: Callable[[Item], Result], block: Item) -> Result:
    return function(block)


def _wait(client: "Client", future: "Future[Any]") -> None:
    """Wait for a future as long as there are workers."""
    from distributed import TimeoutError, wait

    seen = time.monotonic()
    while True:
        try:
            wait(future, timeout=PATIENCE / 10)
            return
        except TimeoutError:
            now = time.monotonic()
            if client.nthreads():
                seen = now
            elif now - seen > PATIENCE:
                raise StscaleError(
                    f"the Dask cluster has had no worker for {PATIENCE:.0f} s; start workers, "
                    "the same command goes on from here"
                ) from None


def _result(client: "Client", future: "Future[Any]") -> Any:
    _wait(client, future)
    return future.result()


@contextmanager
def _said() -> Iterator[None]:
    """Say what became of a cluster in words of its user."""
    from concurrent.futures import CancelledError

    from distributed.client import ClosedClientError
    from distributed.comm.core import CommClosedError
    from distributed.scheduler import KilledWorker

    try:
        yield
    except KilledWorker as error:
        raise StscaleError(
            f"{error.allowed_failures + 1} Dask workers died one after the other on the same task, most likely out "
            "of memory; give the workers more memory, the same command goes on from here"
        ) from error
    except (CancelledError, ClosedClientError, CommClosedError) as error:
        raise StscaleError(
            "the connection to the Dask scheduler was lost; once it is up, the same command goes on from here"
        ) from error


def _settle(client: "Client", pending: Iterable["Future[Any]"]) -> None:
    """Let what was submitted come to its end, whatever that is."""
    from distributed import wait

    futures = list(pending)
    if futures and client.status == "running":
        # a cluster that does not end them in time has other troubles than what they leave behind
        with suppress(Exception):
            wait(futures, timeout=PATIENCE)
