"""A minibatch of nodes with the edges its layers need: seeds first, then hop by hop."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stscale.graphs.csr import Graph


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Seeds, their halo, and one bipartite adjacency that serves every layer.

    Attributes
    ----------
    nodes
        (m,) int64 global ids: the b seeds, then the nodes first met in hop 1, hop 2, …
    counts
        (L + 1,) nodes up to and including each hop; `counts[0]` = b, `counts[L]` = m.
        Layer i maps the first `counts[L - i]` nodes to the first `counts[L - i - 1]`.
    indptr, indices
        CSR of the first `counts[L - 1]` nodes: int64, int64 positions in `nodes`. The rows of hop h point only
        into the first `counts[h + 1]` nodes, so a layer's adjacency is a prefix of these arrays.
        The last entry of each row is the node itself.
    weight
        float32 GCN-normalised weights, 1 / sqrt((deg_i + 1)(deg_j + 1)) with degrees of the whole graph; where
        neighbours were sampled, scaled by deg_i over their number, so that the sum is unbiased.
    """

    nodes: NDArray[np.int64]
    counts: tuple[int, ...]
    indptr: NDArray[np.int64]
    indices: NDArray[np.int64]
    weight: NDArray[np.float32]

    @property
    def n_seeds(self) -> int:
        """Number of seeds b."""
        return self.counts[0]

    @property
    def seeds(self) -> NDArray[np.int64]:
        """Global ids of the seeds, (b,)."""
        return self.nodes[: self.n_seeds]


class Expander:
    """Grows seeds into batches with their full neighbourhoods; owns an n-sized scratch array.

    Parameters
    ----------
    graph
        Symmetric graph without self-loops.
    hops
        Number of layers L.

    Notes
    -----
    New nodes are found without sorting: `scratch[c] = arange(len(c))` keeps the last writer of each repeated
    node, and exactly those positions read themselves back. One batch at a time: not for concurrent calls.
    """

    def __init__(self, graph: Graph, hops: int) -> None:
        self.graph = graph
        self.hops = hops
        self.scale = gcn_scale(graph)
        self._position = np.full(graph.n, -1, dtype=np.int64)
        self._scratch = np.empty(graph.n, dtype=np.int64)

    def expand(self, seeds: NDArray[np.int64]) -> Batch:
        """Return the batch of distinct `seeds` with all their neighbours up to L hops."""
        position = self._position
        parts = [np.asarray(seeds, dtype=np.int64)]
        position[parts[0]] = np.arange(len(seeds))
        counts = [len(seeds)]
        lengths, neighbours = [], []
        for _ in range(self.hops):
            length, near = self.graph.rows(parts[-1])
            lengths.append(length)
            neighbours.append(near)
            fresh = self._distinct(near[position[near] < 0])
            position[fresh] = counts[-1] + np.arange(len(fresh))
            parts.append(fresh)
            counts.append(counts[-1] + len(fresh))
        nodes = np.concatenate(parts)
        indptr, indices = with_loops(np.concatenate(lengths), position[np.concatenate(neighbours)])
        position[nodes] = -1
        scale = self.scale[nodes]
        weight = np.repeat(scale[: len(indptr) - 1], np.diff(indptr)) * scale[indices]
        return Batch(nodes=nodes, counts=tuple(counts), indptr=indptr, indices=indices, weight=weight)

    def _distinct(self, nodes: NDArray[np.int32]) -> NDArray[np.int64]:
        order = np.arange(len(nodes))
        self._scratch[nodes] = order
        return nodes[self._scratch[nodes] == order].astype(np.int64)


def gcn_scale(graph: Graph) -> NDArray[np.float32]:
    """Return 1 / sqrt(deg + 1) of each node, (n,) float32: the GCN normalisation with self-loops."""
    return (1.0 / np.sqrt(graph.degree() + 1.0)).astype(np.float32)


def with_loops(
    lengths: NDArray[np.int64], neighbours: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Append each row's own position as its last entry.

    Parameters
    ----------
    lengths
        (r,) neighbours per row.
    neighbours
        (sum of lengths,) positions, row by row.

    Returns
    -------
    indptr, indices
        CSR of (r,) rows with one entry more each.
    """
    indptr = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths + 1, out=indptr[1:])
    indices = np.empty(indptr[-1], dtype=np.int64)
    own = indptr[1:] - 1
    indices[own] = np.arange(len(lengths))
    rest = np.ones(len(indices), dtype=bool)
    rest[own] = False
    indices[rest] = neighbours
    return indptr, indices
