"""Prepare batches ahead of the loop in one thread."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")


def prefetched(make: Callable[[int], T], steps: range, ahead: int) -> Iterator[T]:
    """Yield `make(step)` for each step, at most `ahead` prepared in advance, in order.

    An error in `make` is raised where its item would have come. Leaving the iterator early stops the thread.
    """
    if ahead == 0:
        yield from map(make, steps)
        return
    ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(maxsize=ahead)
    stop = threading.Event()

    def put(item: tuple[T | None, BaseException | None]) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        for step in steps:
            if stop.is_set():
                return
            try:
                put((make(step), None))
            except BaseException as error:  # handed to the consumer, who raises it
                return put((None, error))

    thread = threading.Thread(target=work, name="stscale-prefetch", daemon=True)
    thread.start()
    try:
        for _ in steps:
            item, error = ready.get()
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        stop.set()
        thread.join()
