"""FAISS behind one signature: exact or inverted-list nearest neighbours, and k-means.

Every FAISS build, CPU or GPU, provides the same module `faiss`; it is imported when first needed, because a
GPU build without its CUDA libraries fails on import with a RuntimeError. Thread counts are not set here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stscale.errors import InputError, StscaleError

Metric = Literal["l2", "cosine", "ip"]
Index = Literal["flat", "ivf", "auto"]

FLAT_PAIRS = 4_000_000_000
"""`index="auto"` compares every pair up to this many of them (63 000 × 63 000), and uses lists above."""

GPU_MAX_K = 2048
"""The GPU indexes of FAISS answer at most this many neighbours."""

BLOCK = 1 << 22
"""Numbers held at once when distances are recomputed from the gathered pairs (32 MB in float64)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbors:
    """The k nearest base rows of every query row, nearest first, ties by the smaller index.

    Attributes
    ----------
    index
        (m, k) int64, rows of the base.
    distance
        (m, k) float32, ascending in every metric: for `"l2"` the Euclidean distance (not its square), for
        `"cosine"` 1 − cos in [0, 2] (a row of zeros has cosine 0 to everything), for `"ip"` minus the inner
        product.
    """

    index: NDArray[np.int64]
    distance: NDArray[np.float32]


class KMeans(NamedTuple):
    """What `kmeans` found: centroids (k, d) float32, assignment (n,) int64, inertia.

    The inertia is the sum over all rows of the squared distance to the own centroid; with `spherical`, of
    1 − cos.
    """

    centroids: NDArray[np.float32]
    assignment: NDArray[np.int64]
    inertia: float


def load_faiss() -> Any:
    """Import FAISS, or say which extra brings it.

    Raises
    ------
    StscaleError
        When no build is installed, or the one installed cannot start.
    """
    try:
        import faiss
    except Exception as error:  # a GPU build without CUDA raises RuntimeError, not ImportError
        reason = (str(error).splitlines() or [""])[0]
        raise StscaleError(
            f"FAISS cannot be imported ({type(error).__name__}: {reason}); install one build of it: "
            "pip install 'stscale[cpu]', or 'stscale[gpu]' on a machine with CUDA"
        ) from error
    return faiss


def backend(device: str = "cuda") -> Literal["cpu", "gpu"]:
    """Say which FAISS a call with this `device` uses.

    Parameters
    ----------
    device
        `"cpu"` or `"cuda"` (with or without a device number).

    Returns
    -------
    str
        `"gpu"` when the build has GPU resources and sees a GPU, else `"cpu"`, the fallback of `"cuda"`.
    """
    faiss = load_faiss()
    if not device.startswith("cuda") or not hasattr(faiss, "StandardGpuResources"):
        return "cpu"
    return "gpu" if faiss.get_num_gpus() > 0 else "cpu"


def search(
    base: ArrayLike,
    query: ArrayLike,
    k: int,
    *,
    metric: Metric = "l2",
    index: Index = "auto",
    nprobe: int = 16,
    exclude_self: bool = False,
    device: str = "cpu",
    seed: int = 0,
) -> Neighbors:
    """Find the k nearest base rows of every query row.

    Parameters
    ----------
    base
        (n, d) float32.
    query
        (m, d) float32.
    k
        Neighbours per query row; at most n, or n − 1 with `exclude_self`.
    metric
        `"l2"`, `"cosine"` or `"ip"` (largest inner product).
    index
        `"flat"` compares all pairs and is exact. `"ivf"` sorts the base into about 1.6·√n lists and looks
        into the `nprobe` nearest: recall about 0.99 on latent spaces. `"auto"` is flat up to `FLAT_PAIRS`
        pairs.
    nprobe
        Lists looked into by `"ivf"`; as many as there are lists makes it exact.
    exclude_self
        Query row i *is* base row i: leave it out of its own neighbours (its duplicates stay).
    device
        `"cuda"` uses the GPU where the FAISS build has one, else the CPU (`backend` says which).
    seed
        Of the lists' k-means. Same seed and thread count, same output.

    Raises
    ------
    InputError
        Shapes that do not fit, values that are not finite, k out of range.
    """
    exact_base, exact_query = _matrix(base, "base"), _matrix(query, "query")
    n, m = len(exact_base), len(exact_query)
    if exact_base.shape[1] != exact_query.shape[1]:
        raise InputError(
            f"base has {exact_base.shape[1]} columns, query {exact_query.shape[1]}; expected the same number"
        )
    if exclude_self and n != m:
        raise InputError(f"exclude_self needs query rows to be the base rows, found {m} and {n}")
    if not 1 <= k <= n - int(exclude_self):
        raise InputError(f"k = {k} neighbours asked of {n} rows; expected 1 to {n - int(exclude_self)}: lower k")
    if metric == "cosine":
        exact_base, exact_query = _normalised(exact_base), _normalised(exact_query)
    if m == 0:
        return Neighbors(index=np.empty((0, k), np.int64), distance=np.empty((0, k), np.float32))
    b, q = exact_base, exact_query
    if metric == "l2":
        # FAISS expands |q|² − 2qb + |b|²: centring keeps float32 from cancelling on far-off coordinates
        centre = b.mean(axis=0, dtype=np.float64).astype(np.float32)
        b, q = b - centre, q - centre
    wanted = k + int(exclude_self)
    use_ivf = index == "ivf" or (index == "auto" and n * m > FLAT_PAIRS)
    built = _index(b, metric, nlist=_lists(n) if use_ivf else 0, nprobe=nprobe, seed=seed)
    _, found = _on_device(built, wanted, device).search(q, wanted)
    short = np.flatnonzero((found < 0).any(axis=1))
    if len(short):  # too few rows in the lists looked into: those queries are answered exactly
        found[short] = _index(b, metric, nlist=0, nprobe=0, seed=seed).search(q[short], wanted)[1]
    if exclude_self:
        found = drop_self(found)
    return _ordered(exact_base, exact_query, found, metric)


def kmeans(
    x: ArrayLike,
    k: int,
    *,
    iterations: int = 20,
    restarts: int = 1,
    seed: int = 0,
    init: NDArray[np.float32] | None = None,
    max_points: int = 1_000_000,
    spherical: bool = False,
    device: str = "cpu",
) -> KMeans:
    """Cluster rows by k-means (Lloyd's iterations of FAISS from random rows, empty clusters re-seeded).

    Parameters
    ----------
    x
        (n, d) float32.
    k
        Number of clusters, 1 to n.
    iterations, restarts
        Lloyd iterations of one run, and runs of which the best is kept.
    seed
        Same seed and thread count, same output.
    init
        (k, d) centroids to start from (warm start); one run is then made.
    max_points
        Centroids are fitted on at most this many rows, drawn by `seed`; all rows are assigned.
    spherical
        Normalise rows and centroids: k-means by cosine.
    device
        As in `search`.

    Raises
    ------
    InputError
        k out of range, values that are not finite, `init` of another shape.
    """
    rows = _matrix(x, "x")
    n, d = rows.shape
    if not 1 <= k <= n:
        raise InputError(f"k = {k} clusters asked of {n} rows; expected 1 to {n}: lower k")
    if max_points < k:
        raise InputError(f"max_points = {max_points} is below k = {k}; raise it")
    if init is not None and init.shape != (k, d):
        raise InputError(f"init has shape {init.shape}, expected ({k}, {d})")
    if spherical:
        rows = _normalised(rows)
    faiss = load_faiss()
    run = faiss.Kmeans(
        d,
        k,
        niter=iterations,
        nredo=1 if init is not None else restarts,
        seed=seed,
        spherical=spherical,
        min_points_per_centroid=1,
        max_points_per_centroid=max(1, max_points // k),
        gpu=backend(device) == "gpu",
    )
    run.train(rows, init_centroids=None if init is None else np.ascontiguousarray(init, np.float32))
    centroids = np.asarray(run.centroids, dtype=np.float32).reshape(k, d)
    nearest = search(centroids, rows, 1, metric="cosine" if spherical else "l2", index="flat", device=device)
    cost = nearest.distance[:, 0].astype(np.float64)
    return KMeans(centroids, nearest.index[:, 0], float(np.sum(cost if spherical else cost**2)))


def drop_self(index: NDArray[np.int64], number: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Remove row i's own number (default i) from row i of (m, k + 1) neighbours; where absent (duplicates), the last.

    Returns
    -------
    NDArray
        (m, k) int64, the order kept.
    """
    own = index == (np.arange(len(index)) if number is None else number)[:, None]
    own[:, -1] |= ~own.any(axis=1)
    kept: NDArray[np.int64] = index[~own].reshape(len(index), -1)
    return kept


def _matrix(x: ArrayLike, name: str) -> NDArray[np.float32]:
    """Check and return a contiguous float32 matrix."""
    rows = np.ascontiguousarray(x, dtype=np.float32)
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise InputError(f"{name} has shape {rows.shape}, expected (rows, columns)")
    if not np.isfinite(rows).all():
        bad = int((~np.isfinite(rows).all(axis=1)).sum())
        raise InputError(f"{name} has {bad} rows that are not finite in float32; remove or fill them")
    return rows


def _normalised(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Divide rows by their length; rows of zeros stay."""
    length = np.sqrt(np.einsum("ij,ij->i", x, x, dtype=np.float64))[:, None]
    return (x / np.where(length > 0, length, 1.0)).astype(np.float32)


def _lists(n: int) -> int:
    """Inverted lists for n rows; 512 at 100 000."""
    return max(1, round(1.6 * float(np.sqrt(n))))


def _index(base: NDArray[np.float32], metric: Metric, *, nlist: int, nprobe: int, seed: int) -> Any:
    """Build a flat index, or an inverted one when `nlist` > 0."""
    faiss = load_faiss()
    kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    d = base.shape[1]
    flat = faiss.IndexFlat(d, kind)
    if nlist == 0:
        flat.add(base)
        return flat
    built = faiss.IndexIVFFlat(flat, d, nlist, kind)
    built.cp.seed, built.cp.min_points_per_centroid, built.nprobe = seed, 1, min(nprobe, nlist)
    built.train(base)
    built.add(base)
    return built


def _on_device(built: Any, k: int, device: str) -> Any:
    """Copy an index to the GPU when asked for, there, and able to answer k."""
    if k > GPU_MAX_K or backend(device) == "cpu":
        return built
    faiss = load_faiss()
    number = int(device.partition(":")[2] or 0)
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), number, built)


def _ordered(
    base: NDArray[np.float32], query: NDArray[np.float32], index: NDArray[np.int64], metric: Metric
) -> Neighbors:
    """Recompute the distances of the gathered pairs in float64 and order each row by (distance, index)."""
    m, k = index.shape
    order_index, order_distance = np.empty((m, k), np.int64), np.empty((m, k), np.float32)
    step = max(1, BLOCK // (k * base.shape[1]))
    for lo in range(0, m, step):
        part = slice(lo, min(lo + step, m))
        q = query[part].astype(np.float64)
        gathered = base[index[part]].astype(np.float64)  # (rows, k, d)
        if metric == "l2":
            gathered -= q[:, None, :]
            distance = np.sqrt(np.einsum("ijk,ijk->ij", gathered, gathered))
        else:
            product = np.einsum("ijk,ik->ij", gathered, q)
            distance = np.clip(1.0 - product, 0.0, 2.0) if metric == "cosine" else -product
        single = distance.astype(np.float32)
        order = np.lexsort((index[part], single), axis=1)
        order_index[part] = np.take_along_axis(index[part], order, axis=1)
        order_distance[part] = np.take_along_axis(single, order, axis=1)
    return Neighbors(index=order_index, distance=order_distance)
