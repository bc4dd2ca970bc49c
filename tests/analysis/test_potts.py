"""Neighbours have a say in the domain of a spot."""

import numpy as np
import pytest

from stscale.analysis import potts
from stscale.analysis.domains import beside_neighbors, cluster
from stscale.analysis.metrics import ari
from stscale.analysis.potts import EVIDENCE, spatial_responsibilities
from stscale.config import Domains
from stscale.errors import InputError
from stscale.graphs.build import knn_graph
from stscale.graphs.csr import from_pairs


@pytest.fixture(scope="module")
def noisy():
    """Three bands on a square lattice, each with a mean of its own in four noisy dimensions."""
    side = 30
    xy = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2).astype(float)
    truth = (xy[:, 0] // 10).astype(int)
    rng = np.random.default_rng(5)
    z = rng.normal(size=(side * side, 4)).astype(np.float32)
    z[np.arange(len(z)), truth] += 2.0
    return z, truth, knn_graph(xy, 4)


@pytest.mark.parametrize("covariance", ["tied", "shrunk"])
def test_neighbors_overrule_noise_and_leave_the_mixture_alone(noisy, covariance):
    z, truth, graph = noisy
    fit = cluster(z, Domains(k=3, n_init=6, n_components=0, covariance=covariance), seed=0)
    better = beside_neighbors(fit, z, graph.indptr, graph.indices, strength=6.0)
    assert ari(truth, fit.labels) < 0.8
    assert ari(truth, better.labels) > 0.93
    assert better.k == 3
    sizes = np.bincount(better.labels)
    assert (np.diff(sizes) <= 0).all()
    # further latents get the domain of the same component, under its new number
    table = {(a, b) for a, b in zip(fit.predict(z), better.predict(z), strict=True)}
    assert len(table) == 3


def test_result_solves_the_stated_equations(noisy):
    z, _, graph = noisy
    score = -0.5 * ((z[:, None] - 2 * np.eye(4)[:3]) ** 2).sum(axis=2)
    q = spatial_responsibilities(score, graph.indptr, graph.indices, strength=3.0)
    near = np.stack([q[graph.indices[a:b]].mean(axis=0) for a, b in zip(graph.indptr, graph.indptr[1:], strict=False)])
    expected = np.exp(EVIDENCE * score + 3.0 * near)
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(q, expected, atol=5e-3)


def test_blocks_hardly_matter_and_a_spot_alone_keeps_its_own(noisy, monkeypatch):
    score = np.log(np.array([[0.9, 0.1], [0.45, 0.55], [0.9, 0.1], [0.4, 0.6]]))
    graph = from_pairs(4, np.array([0, 1, 1, 2]), np.array([1, 0, 2, 1]))
    q = spatial_responsibilities(score, graph.indptr, graph.indices, strength=6.0)
    assert q.argmax(axis=1).tolist() == [0, 0, 0, 1]
    own = np.exp(EVIDENCE * score[3])
    np.testing.assert_allclose(q[3], own / own.sum(), rtol=1e-5)
    z, _, graph = noisy
    score = z[:, :3]
    whole = spatial_responsibilities(score, graph.indptr, graph.indices, strength=3.0)
    monkeypatch.setattr(potts, "ROWS", 97)
    blocks = spatial_responsibilities(score, graph.indptr, graph.indices, strength=3.0)
    assert (whole.argmax(axis=1) == blocks.argmax(axis=1)).mean() > 0.98


def test_without_likelihood_or_with_another_graph_it_is_refused(noisy):
    z, _, graph = noisy
    fit = cluster(z, Domains(method="kmeans", k=3, n_init=2), seed=0)
    with pytest.raises(InputError, match=r"kmeans have no likelihood .* method = 'gmm'"):
        beside_neighbors(fit, z, graph.indptr, graph.indices, strength=6.0)
    fit = cluster(z, Domains(k=3, n_init=2), seed=0)
    with pytest.raises(InputError, match="graph has 900 spots and there are 899 latents"):
        beside_neighbors(fit, z[1:], graph.indptr, graph.indices, strength=6.0)
