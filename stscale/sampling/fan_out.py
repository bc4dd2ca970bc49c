"""Neighbour sampling from CSR rows, behind PyTorch Geometric's sampler interface."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch_geometric.sampler import BaseSampler, EdgeSamplerInput, NodeSamplerInput, SamplerOutput

from stscale.errors import StscaleError
from stscale.graphs.csr import Graph
from stscale.sampling.pick import smallest_per_row


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Sampled neighbours: `nodes` seeds first, `row` (target) and `col` (source) positions in `nodes`.

    Attributes
    ----------
    nodes
        (m,) int64 global ids in order of discovery.
    row, col
        (e,) int64; the edges are grouped by target, targets in the order of `nodes`.
    node_counts, edge_counts
        Nodes first met and edges drawn per hop (PyG's `num_sampled_nodes`, `num_sampled_edges`).
    """

    nodes: NDArray[np.int64]
    row: NDArray[np.int64]
    col: NDArray[np.int64]
    node_counts: tuple[int, ...]
    edge_counts: tuple[int, ...]


class CsrSampler(BaseSampler):
    """Uniform neighbours without replacement, `fan_out[h]` per node of hop h (-1: all).

    Parameters
    ----------
    graph
        Symmetric graph without self-loops.
    fan_out
        Neighbours per hop.
    seed
        Each call draws from (seed, calls so far) unless `draw` is given a generator.

    Notes
    -----
    Without replacement by ranking: within each row the neighbours get random keys, the `fan_out` smallest stay.
    """

    def __init__(self, graph: Graph, fan_out: tuple[int, ...], seed: int = 0) -> None:
        self.graph = graph
        self.fan_out = fan_out
        self._rng = np.random.default_rng(seed)
        self._position = np.full(graph.n, -1, dtype=np.int64)

    def draw(self, seeds: NDArray[np.int64], rng: np.random.Generator) -> Draw:
        """Sample the neighbourhood of distinct `seeds`."""
        position = self._position
        parts = [np.asarray(seeds, dtype=np.int64)]
        position[parts[0]] = np.arange(len(seeds))
        found, first = len(seeds), 0
        rows, cols, edge_counts = [], [], []
        for fan in self.fan_out:
            lengths, near = self.graph.rows(parts[-1])
            row = np.repeat(np.arange(len(lengths)), lengths)
            if fan >= 0:
                keep = smallest_per_row(lengths, row, fan, rng)
                row, near = row[keep], near[keep]
            fresh = np.unique(near[position[near] < 0]).astype(np.int64)
            position[fresh] = found + np.arange(len(fresh))
            rows.append(first + row)
            cols.append(position[near])
            edge_counts.append(len(row))
            first = found
            found += len(fresh)
            parts.append(fresh)
        nodes = np.concatenate(parts)
        position[nodes] = -1
        return Draw(
            nodes=nodes,
            row=np.concatenate(rows),
            col=np.concatenate(cols),
            node_counts=tuple(len(p) for p in parts),
            edge_counts=tuple(edge_counts),
        )

    def sample_from_nodes(self, inputs: NodeSamplerInput, **_: object) -> SamplerOutput:
        """Sample for PyG loaders; edges point from source (`row`) to target (`col`), as PyG has them."""
        drawn = self.draw(inputs.node.numpy(), self._rng)
        return SamplerOutput(
            node=torch.from_numpy(drawn.nodes),
            row=torch.from_numpy(drawn.col),
            col=torch.from_numpy(drawn.row),
            edge=None,
            num_sampled_nodes=list(drawn.node_counts),
            num_sampled_edges=list(drawn.edge_counts),
            metadata=(inputs.input_id, inputs.time),
        )

    def sample_from_edges(self, inputs: EdgeSamplerInput, neg_sampling: object = None) -> SamplerOutput:
        """Refuse: stscale has no loss over sampled edges."""
        raise StscaleError("CsrSampler samples around nodes only; use PyG's LinkNeighborLoader for edges")


def node_sampler(graph: Graph, fan_out: tuple[int, ...], seed: int = 0) -> BaseSampler:
    """Return PyG's own neighbour sampler where pyg-lib or torch-sparse are importable, else `CsrSampler`."""
    from torch_geometric import typing as pyg

    if not (pyg.WITH_PYG_LIB or pyg.WITH_TORCH_SPARSE):
        return CsrSampler(graph, fan_out, seed)
    from torch_geometric.data import Data
    from torch_geometric.sampler import NeighborSampler as PygSampler

    row = np.repeat(np.arange(graph.n), graph.degree())
    edges = torch.from_numpy(np.stack([graph.indices.astype(np.int64), row]))
    return PygSampler(Data(edge_index=edges, num_nodes=graph.n), num_neighbors=list(fan_out))
