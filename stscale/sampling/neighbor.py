"""Minibatches of random seeds with a fan-out per hop."""

import numpy as np
import torch
from numpy.typing import NDArray

from stscale.graphs.csr import Graph
from stscale.sampling.batch import Batch, Relation, gcn_scale, stand_in, with_loops
from stscale.sampling.fan_out import CsrSampler, Draw, node_sampler
from stscale.sampling.order import even_cuts, stratified_order


class NeighborSampler:
    """Random seeds over all slices with sampled neighbours (the semantics of PyG's NeighborLoader).

    Parameters
    ----------
    graph
        Symmetric graph without self-loops.
    offsets
        (s + 1,) first node of each slice, and n.
    fan_out
        Neighbours drawn per hop, one number per layer; -1 takes all.
    batch_size
        Seeds per batch.
    seed
        With the step it fixes seeds and neighbours.
    part
        (rank, ranks): which run of each batch's seeds is drawn.
    """

    def __init__(
        self,
        graph: Graph,
        offsets: NDArray[np.int64],
        *,
        fan_out: tuple[int, ...],
        batch_size: int,
        seed: int,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self._group = np.repeat(np.arange(len(offsets) - 1, dtype=np.int32), np.diff(offsets))
        self.tiles = tuple(int(size) for size in np.diff(offsets))
        self._cuts = even_cuts(graph.n, batch_size)
        self._degree = graph.degree()
        self._scale = gcn_scale(graph)
        self._hops = len(fan_out)
        self._seed = seed
        self._part = part
        self._epoch: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))
        self._sampler = node_sampler(graph, fan_out, seed)

    @property
    def batches_per_epoch(self) -> int:
        """Batches in which every spot is a seed exactly once."""
        return len(self._cuts) - 1

    def batch(self, step: int) -> Batch:
        """Return the batch of a step counted from 0; any step can be asked at any time."""
        rank, count = self._part
        return self._as_batch(self._draw(np.array_split(self.seeds(step), count)[rank], step))

    def seeds(self, step: int) -> NDArray[np.int64]:
        """Return the global ids that are the seeds of a step over all ranks."""
        epoch, index = divmod(step, self.batches_per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, stratified_order(self._group, self._seed, epoch))
        return self._epoch[1][self._cuts[index] : self._cuts[index + 1]]

    def tile_of(self, nodes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the tile of each node, (m,): every spot is one of its own."""
        return nodes

    def _draw(self, seeds: NDArray[np.int64], step: int) -> Draw:
        if isinstance(self._sampler, CsrSampler):
            return self._sampler.draw(seeds, np.random.default_rng([self._seed, step, 1, *self._part[:1]]))
        from torch_geometric.sampler import NodeSamplerInput

        # PyG's compiled samplers draw from the global generator: lend it a state of ours and give it back
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(hash((self._seed, step, self._part[0])) & 0x7FFFFFFF)
            out = self._sampler.sample_from_nodes(NodeSamplerInput(input_id=None, node=torch.from_numpy(seeds.copy())))
        order = np.argsort(out.col.numpy(), kind="stable")
        return Draw(
            nodes=out.node.numpy(),
            row=out.col.numpy()[order],
            col=out.row.numpy()[order],
            node_counts=tuple(int(c) for c in out.num_sampled_nodes),
            edge_counts=tuple(int(c) for c in out.num_sampled_edges),
        )

    def _as_batch(self, drawn: Draw) -> Batch:
        counts = tuple(int(c) for c in np.cumsum(drawn.node_counts))
        inner = counts[self._hops - 1]
        lengths = np.bincount(drawn.row, minlength=inner).astype(np.int64)
        indptr, indices = with_loops(lengths, drawn.col)
        scale = self._scale[drawn.nodes]
        weight = np.repeat(scale[:inner], lengths + 1) * scale[indices]
        weight *= stand_in(self._degree[drawn.nodes[:inner]], lengths, indptr)
        relation = Relation(indptr=indptr, indices=indices, weight=weight)
        return Batch(nodes=drawn.nodes, counts=counts, relations=(relation,))
