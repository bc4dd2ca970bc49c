"""The graph type: symmetric, unweighted, without self-loops, in compressed rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from stscale.atomic import atomic_path
from stscale.errors import InputError, StscaleError


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """An undirected graph as CSR rows.

    Attributes
    ----------
    indptr
        (n + 1,) int64, row i holds `indices[indptr[i]:indptr[i + 1]]`.
    indices
        (E,) int32, neighbours in increasing order. Both directions of an edge are stored, no self-loops.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]

    @property
    def n(self) -> int:
        """Number of nodes."""
        return len(self.indptr) - 1

    @property
    def n_edges(self) -> int:
        """Number of stored entries E: twice the number of undirected edges."""
        return len(self.indices)

    def degree(self) -> NDArray[np.int64]:
        """Neighbours of each node, (n,) int64, self not counted."""
        return np.diff(self.indptr)

    def rows(self, nodes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Gather the neighbours of `nodes`, in the order asked.

        Parameters
        ----------
        nodes
            (m,) node ids, repeats allowed.

        Returns
        -------
        lengths
            (m,) int64 neighbours per asked node.
        neighbours
            (sum of lengths,) int32, node by node.
        """
        start = self.indptr[nodes]
        lengths = self.indptr[np.asarray(nodes) + 1] - start
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        place = np.repeat(start - (ends - lengths), lengths) + np.arange(total)
        return lengths, self.indices[place]

    def subgraph(self, nodes: NDArray[np.int64]) -> "Graph":
        """Keep `nodes` (distinct) and the edges among them; node j of the result is `nodes[j]`."""
        place = np.full(self.n, -1, dtype=np.int64)
        place[nodes] = np.arange(len(nodes))
        lengths, neighbours = self.rows(nodes)
        row = np.repeat(np.arange(len(nodes)), lengths)
        col = place[neighbours]
        return from_pairs(len(nodes), row[col >= 0], col[col >= 0])

    def validate(self) -> None:
        """Check the invariants.

        Raises
        ------
        StscaleError
            Naming the first invariant that does not hold.
        """
        if self.indptr[0] != 0 or self.indptr[-1] != self.n_edges or (np.diff(self.indptr) < 0).any():
            raise StscaleError("graph rows are not monotone: the file is damaged, build the graph again")
        if self.n_edges and (self.indices.min() < 0 or self.indices.max() >= self.n):
            raise StscaleError(f"graph points outside its {self.n} nodes")
        row = np.repeat(np.arange(self.n), self.degree())
        if (row == self.indices).any():
            raise StscaleError("graph holds self-loops; they are added with the weights, not stored")
        forward = row * self.n + self.indices
        if len(np.unique(forward)) != self.n_edges:
            raise StscaleError("graph holds repeated edges")
        if (np.diff(forward) < 0).any():
            raise StscaleError("graph rows are not in increasing order")
        if not np.array_equal(np.sort(forward), np.sort(self.indices.astype(np.int64) * self.n + row)):
            raise StscaleError("graph is not symmetric")

    def save(self, path: Path) -> None:
        """Write to one uncompressed .npz, whole or not at all."""
        with atomic_path(path) as part, part.open("wb") as file:
            np.savez(file, indptr=self.indptr, indices=self.indices)

    def unpack(self, folder: Path) -> None:
        """Write the arrays as files of their own in `folder`, for `mapped`."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in (("indptr", self.indptr), ("indices", self.indices)):
            with atomic_path(folder / f"{name}.npy") as part:
                np.save(part, array)


def load(path: Path) -> Graph:
    """Read a graph written by `Graph.save`.

    Raises
    ------
    InputError
        When the file is missing or holds no graph.
    """
    try:
        with path.open("rb") as raw, np.load(raw) as file:
            return Graph(indptr=file["indptr"], indices=file["indices"])
    except (OSError, KeyError, ValueError, TypeError, EOFError, BadZipFile) as error:
        raise InputError(f"{path} holds no graph ({error}); build it again with --fresh") from error


def mapped(folder: Path) -> Graph:
    """Open the files of `Graph.unpack` mapped into memory: processes of one machine share them."""
    indptr, indices = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("indptr", "indices"))
    return Graph(indptr=indptr, indices=indices)


def from_pairs(n: int, row: NDArray[np.integer], col: NDArray[np.integer]) -> Graph:
    """Make the symmetric graph of directed pairs: (i, j) or (j, i) given, both stored once; loops dropped.

    Parameters
    ----------
    n
        Number of nodes.
    row, col
        (m,) ends of the pairs, repeats allowed.
    """
    from scipy.sparse import coo_matrix

    keep = row != col
    one = np.ones(int(keep.sum()), dtype=bool)  # repeats are joined by "or": counts of them could wrap around to 0
    half = coo_matrix((one, (row[keep], col[keep])), shape=(n, n)).tocsr()
    both = (half + half.T).tocsr()
    both.sort_indices()
    return Graph(indptr=both.indptr.astype(np.int64), indices=both.indices.astype(np.int32))


def block_diagonal(graphs: Sequence[Graph]) -> Graph:
    """Join graphs side by side without an edge between them; node ids are shifted by the sizes before."""
    if not graphs:
        raise InputError("no graph to join: at least one slice is needed")
    nodes = np.cumsum([0, *(g.n for g in graphs)])
    edges = np.cumsum([0, *(g.n_edges for g in graphs)])
    indptr = np.concatenate([[0], *(g.indptr[1:] + e for g, e in zip(graphs, edges, strict=False))])
    indices = np.concatenate([g.indices + np.int32(o) for g, o in zip(graphs, nodes, strict=False)])
    return Graph(indptr=indptr.astype(np.int64), indices=indices.astype(np.int32))


def with_edges(graph: Graph, row: NDArray[np.integer], col: NDArray[np.integer]) -> Graph:
    """Return the graph with the edges (row, col), (m,) nodes each, in addition; repeats are joined, loops dropped."""
    from scipy.sparse import csr_matrix

    given, more = (
        csr_matrix((np.ones(part.n_edges, dtype=bool), part.indices, part.indptr), shape=(graph.n, graph.n))
        for part in (graph, from_pairs(graph.n, row, col))
    )
    both = given + more
    both.sort_indices()
    return Graph(indptr=both.indptr.astype(np.int64), indices=both.indices.astype(np.int32))
