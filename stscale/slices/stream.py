"""Where Dask computes: a tree reduction and an ordered map over row blocks, both bounded in memory.

These functions are the only sinks of pre-processing. Block functions are pure: they get a `Block`, read
what they need from disk and return a value. The order in which results are combined depends on the blocks
alone, so the outcome is bit-equal whatever the number of workers.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from stscale.compute import Compute, Scheduler, Tasks, current_client, in_order
from stscale.slices.collection import Collection

FAN_IN = 8  # results combined at a time
ENTRIES = 1 << 21  # stored counts a block is meant to hold: about 16 MiB of values and indices

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Block:
    """Rows `lo` to `hi` (half-open) of slice `slice` of a collection."""

    slice: int
    lo: int
    hi: int


def collection_blocks(collection: Collection, *, rows: int | None = None, entries: int = ENTRIES) -> list[Block]:
    """Cut a collection into blocks of bounded size, slice by slice, row by row.

    Parameters
    ----------
    collection
        The slices.
    rows
        Most rows a block may have; default: the chunk of each store.
    entries
        Stored counts a block should not exceed, judged by the mean of its slice. A block is never cut below
        one tile for it.

    Returns
    -------
    list of Block
        Every row of every slice exactly once, in order.
    """
    blocks = []
    for i, store in enumerate(collection.stores):
        fit = int(entries * store.n / max(store.nnz, 1)) // store.tile * store.tile
        step = rows if rows is not None else min(store.chunk, max(store.tile, fit))
        blocks += [Block(slice=i, lo=lo, hi=min(lo + step, store.n)) for lo in range(0, store.n, step)]
    return blocks


def reduce_blocks(
    function: Callable[[Item], Result],
    blocks: Sequence[Item],
    combine: Callable[[Sequence[Result]], Result],
    *,
    workers: int = 2,
    fan_in: int = FAN_IN,
    scheduler: Scheduler | None = "threads",
) -> Result:
    """Combine the results of all blocks in a tree of fixed shape.

    Parameters
    ----------
    function
        Pure function of one block.
    blocks
        At least one.
    combine
        Associative combination of one to `fan_in` results, given in block order.
    workers
        Threads of the threaded scheduler, or of the cluster. It has no influence on the result.
    fan_in
        Results combined at a time, at least 2.
    scheduler
        ``"threads"``, ``"synchronous"``, or None for Dask's current one: the cluster of a distributed client
        when there is one.

    Returns
    -------
    Result
        Memory: about ``fan_in · log(blocks)`` results at a time.

    Raises
    ------
    ValueError
        If there is no block, or `fan_in` is below 2.
    """
    if not blocks:
        raise ValueError("there are no blocks to reduce; give at least one")
    if fan_in < 2:
        raise ValueError(f"fan_in is {fan_in}; it must be at least 2")
    # One graph per subtree of fan_in² blocks, so that neither the graph nor its results grow with n.
    levels: list[list[Result]] = [[]]
    step = fan_in * fan_in
    parts = [blocks[start : start + step] for start in range(0, len(blocks), step)]
    for result in _subtrees(function, parts, combine, workers, fan_in, scheduler):
        levels[0].append(result)
        level = 0
        while len(levels[level]) == fan_in:
            if level + 1 == len(levels):
                levels.append([])
            levels[level + 1].append(combine(levels[level]))
            levels[level] = []
            level += 1
    # what is left: the highest level holds the earliest blocks
    rest = [result for level_results in reversed(levels) for result in level_results]
    while len(rest) > 1:
        rest = [combine(rest[k : k + fan_in]) for k in range(0, len(rest), fan_in)]
    return rest[0]


def map_blocks(
    function: Callable[[Item], Result],
    blocks: Sequence[Item],
    *,
    workers: int = 2,
    scheduler: Scheduler | None = "threads",
) -> Iterator[Result]:
    """Yield the result of every block, in block order, while the next ones are being computed.

    Parameters
    ----------
    function
        Pure function of one block.
    blocks
        Any number.
    workers
        Blocks computed side by side; at most twice as many are under way or wait for the caller at a time.
    scheduler
        As in `reduce_blocks`.

    Yields
    ------
    Result
        For a writer or an accumulator that must see the blocks in order.
    """
    client = current_client() if scheduler is None else None
    if client is not None and blocks:
        yield from in_order(client, Tasks(client, function).one, blocks, ahead=2 * workers)
        return
    windows = [blocks[start : start + workers] for start in range(0, len(blocks), workers)]
    if not windows:
        return
    with ThreadPoolExecutor(max_workers=1) as ahead:
        pending = ahead.submit(_window, function, windows[0], workers, scheduler)
        for following in [*windows[1:], None]:
            results = pending.result()
            if following is not None:
                pending = ahead.submit(_window, function, following, workers, scheduler)
            results.reverse()
            while results:
                # popped, so that a consumed result is not kept alive by its window
                yield results.pop()


def spread(function: Callable[[Item], Result], items: Sequence[Item], compute: Compute) -> Iterator[Result]:
    """Yield the result of every item, in order, for items of which each may take much memory.

    Parameters
    ----------
    function
        Function of one item, which may run again when a worker is lost.
    items
        Any number.
    compute
        On a cluster, as in `map_blocks`; in this process one after the other.
    """
    if compute.remote:
        return map_blocks(function, items, workers=compute.workers, scheduler=compute.scheduler)
    return map(function, items)


def _subtrees(
    function: Callable[[Item], Result],
    parts: Sequence[Sequence[Item]],
    combine: Callable[[Sequence[Result]], Result],
    workers: int,
    fan_in: int,
    scheduler: Scheduler | None,
) -> Iterator[Result]:
    client = current_client() if scheduler is None else None
    if client is None:
        for part in parts:
            yield _subtree(function, part, combine, workers, fan_in, scheduler)
        return
    tasks = Tasks(client, function)
    # enough subtrees at a time that no worker waits for the end of one
    ahead = 1 + -(-2 * workers // len(parts[0]))
    yield from in_order(client, lambda part: tasks.tree(part, combine, fan_in), parts, ahead=ahead)


def _subtree(
    function: Callable[[Item], Result],
    blocks: Sequence[Item],
    combine: Callable[[Sequence[Result]], Result],
    workers: int,
    fan_in: int,
    scheduler: Scheduler | None,
) -> Result:
    from dask.delayed import delayed

    one, some = delayed(function, pure=False), delayed(combine, pure=False)
    nodes = [one(block) for block in blocks]
    while len(nodes) > 1:
        nodes = [some(nodes[k : k + fan_in]) for k in range(0, len(nodes), fan_in)]
    result: Result = _compute(nodes, workers, scheduler)[0]
    return result


def _window(
    function: Callable[[Item], Result], blocks: Sequence[Item], workers: int, scheduler: Scheduler | None
) -> list[Result]:
    from dask.delayed import delayed

    one = delayed(function, pure=False)
    return _compute([one(block) for block in blocks], workers, scheduler)


def _compute(nodes: Sequence[object], workers: int, scheduler: Scheduler | None) -> list[Any]:
    import dask.base

    compute: Callable[..., tuple[Any, ...]] = dask.base.compute  # dask does not annotate it
    if scheduler is None:
        return list(compute(*nodes))
    return list(compute(*nodes, scheduler=scheduler, num_workers=workers))
