"""A minibatch of nodes with the edges its layers need: seeds first, then hop by hop."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stscale.graphs.csr import Graph
from stscale.sampling.pick import smallest_per_row


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """One bipartite adjacency that serves every layer.

    Attributes
    ----------
    indptr, indices
        CSR of the first `counts[L - 1]` nodes of a batch: int64, int64 positions in `nodes`. The rows of hop h point
        only into the first `counts[h + 1]` nodes, so a layer's adjacency is a prefix of these arrays.
        The last entry of each row is the node itself.
    weight
        float32 GCN-normalised weights, 1 / sqrt((deg_i + 1)(deg_j + 1)) with degrees of the whole graph; where
        neighbours were sampled, scaled by deg_i over their number, so that the sum is unbiased.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int64]
    weight: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Seeds, their halo, and the edges among them.

    Attributes
    ----------
    nodes
        (m,) int64 global ids: the b seeds, then the nodes first met in hop 1, hop 2, …
    counts
        (L + 1,) nodes up to and including each hop; `counts[0]` = b, `counts[L]` = m.
        Layer i maps the first `counts[L - i]` nodes to the first `counts[L - i - 1]`.
    relations
        The edges, one adjacency per graph.
    """

    nodes: NDArray[np.int64]
    counts: tuple[int, ...]
    relations: tuple[Relation, ...]

    @property
    def n_seeds(self) -> int:
        """Number of seeds b."""
        return self.counts[0]

    @property
    def seeds(self) -> NDArray[np.int64]:
        """Global ids of the seeds, (b,)."""
        return self.nodes[: self.n_seeds]


class Expander:
    """Grows seeds into batches with their neighbourhoods; owns two n-sized scratch arrays.

    Parameters
    ----------
    graphs
        Symmetric graphs of the same nodes, without self-loops. A hop takes the neighbours in any of them.
    hops
        Number of layers L.
    fan_outs
        For each graph the neighbours drawn per hop, without replacement; -1 takes all. Default: all of all graphs.

    Notes
    -----
    New nodes are found without sorting: `scratch[c] = arange(len(c))` keeps the last writer of each repeated
    node, and exactly those positions read themselves back. One batch at a time: not for concurrent calls.
    """

    def __init__(
        self, graphs: Graph | Sequence[Graph], hops: int, fan_outs: Sequence[tuple[int, ...]] | None = None
    ) -> None:
        self.graphs = (graphs,) if isinstance(graphs, Graph) else tuple(graphs)
        self.hops = hops
        self._fan_outs = fan_outs or [(-1,) * hops] * len(self.graphs)
        self._scales = [gcn_scale(graph) for graph in self.graphs]
        n = self.graphs[0].n
        self._position = np.full(n, -1, dtype=np.int64)
        self._scratch = np.empty(n, dtype=np.int64)

    def expand(self, seeds: NDArray[np.int64], rng: np.random.Generator | None = None) -> Batch:
        """Return the batch of distinct `seeds` with their neighbours up to L hops.

        Parameters
        ----------
        seeds
            (b,) global ids.
        rng
            Draws the neighbours; needed where a fan-out is not -1.
        """
        position = self._position
        parts = [np.asarray(seeds, dtype=np.int64)]
        position[parts[0]] = np.arange(len(seeds))
        counts = [len(seeds)]
        found: list[list[tuple[NDArray[np.int64], NDArray[np.int32]]]] = [[] for _ in self.graphs]
        for hop in range(self.hops):
            for graph, fan_out, rows in zip(self.graphs, self._fan_outs, found, strict=True):
                rows.append(_drawn(*graph.rows(parts[-1]), fan_out[hop], rng))
            near = np.concatenate([rows[-1][1] for rows in found])
            fresh = self._distinct(near[position[near] < 0])
            position[fresh] = counts[-1] + np.arange(len(fresh))
            parts.append(fresh)
            counts.append(counts[-1] + len(fresh))
        nodes = np.concatenate(parts)
        relations = tuple(self._relation(i, nodes, rows) for i, rows in enumerate(found))
        position[nodes] = -1
        return Batch(nodes=nodes, counts=tuple(counts), relations=relations)

    def _relation(
        self, i: int, nodes: NDArray[np.int64], rows: list[tuple[NDArray[np.int64], NDArray[np.int32]]]
    ) -> Relation:
        lengths = np.concatenate([length for length, _ in rows])
        indptr, indices = with_loops(lengths, self._position[np.concatenate([near for _, near in rows])])
        scale = self._scales[i][nodes]
        weight = np.repeat(scale[: len(lengths)], lengths + 1) * scale[indices]
        if any(fan >= 0 for fan in self._fan_outs[i]):
            weight *= stand_in(self.graphs[i].degree()[nodes[: len(lengths)]], lengths, indptr)
        return Relation(indptr=indptr, indices=indices, weight=weight)

    def _distinct(self, nodes: NDArray[np.int32]) -> NDArray[np.int64]:
        order = np.arange(len(nodes))
        self._scratch[nodes] = order
        return nodes[self._scratch[nodes] == order].astype(np.int64)


def _drawn(
    lengths: NDArray[np.int64], near: NDArray[np.int32], fan: int, rng: np.random.Generator | None
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Keep at most `fan` neighbours of each row; -1: all."""
    if fan < 0:
        return lengths, near
    if rng is None:
        raise ValueError("sampled neighbours need a generator")
    kept = smallest_per_row(lengths, np.repeat(np.arange(len(lengths)), lengths), fan, rng)
    return np.minimum(lengths, fan), near[kept]


def stand_in(degree: NDArray[np.int64], drawn: NDArray[np.int64], indptr: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the factor of each entry that lets drawn neighbours stand in for all; a self-loop keeps its weight.

    Parameters
    ----------
    degree
        (r,) neighbours of each row in the graph.
    drawn
        (r,) of them drawn.
    indptr
        (r + 1,) of the rows with self-loops, see `with_loops`.
    """
    factor = np.repeat((degree / np.maximum(drawn, 1)).astype(np.float32), drawn + 1)
    factor[indptr[1:] - 1] = 1.0
    return factor


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
