"""Pseudotime along a made path of domains, and the abstracted graph against counts by hand."""

import numpy as np
import pytest

from stscale.analysis.trajectory import affinities, paga, trajectory
from stscale.errors import InputError

N, K = 600, 4


@pytest.fixture(scope="module")
def path() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return latents on a curved line, their domains, and how far along each is; rows shuffled."""
    rng = np.random.default_rng(0)
    at = rng.permutation(np.linspace(0, 1, N))
    z = np.stack([np.cos(2 * at), np.sin(2 * at), at], axis=1) * 4 + 0.05 * rng.standard_normal((N, 3))
    # numbers that are not in the order of the path
    domain = np.array([2, 0, 3, 1])[np.minimum((at * K).astype(int), K - 1)]
    return z.astype(np.float32), domain, at


def test_pseudotime_follows_the_path_from_the_root(path) -> None:
    from scipy.stats import spearmanr

    z, domain, at = path
    found = trajectory(z, domain, 2, seed=0)
    assert found.fitted == N
    assert found.notes == ()
    assert found.pseudotime.min() == 0
    assert found.pseudotime.max() == 1
    assert spearmanr(found.pseudotime, at).statistic > 0.99
    assert at[found.root] < 0.05  # an end of the root domain, not its middle
    back = trajectory(z, domain, 1, seed=0)
    assert spearmanr(back.pseudotime, at).statistic < -0.99


def test_domains_hang_together_in_the_order_of_the_path(path) -> None:
    z, domain, _ = path
    found = trajectory(z, domain, 2, seed=0).connectivity
    assert np.array_equal(found, found.T)
    joined = {(i, j) for i, j in zip(*np.nonzero(found > 0), strict=True) if i < j}
    assert joined == {(0, 2), (0, 3), (1, 3)}


def test_a_subsample_is_interpolated_and_seeded(path) -> None:
    z, domain, _ = path
    whole = trajectory(z, domain, 2, seed=0).pseudotime
    part, again, other = (trajectory(z, domain, 2, seed=s, most=200) for s in (1, 1, 2))
    assert part.fitted == 200
    assert np.isfinite(part.pseudotime).all()
    assert np.array_equal(part.pseudotime, again.pseudotime)
    assert not np.array_equal(part.pseudotime, other.pseudotime)
    assert np.corrcoef(part.pseudotime, whole)[0, 1] > 0.99


def test_what_cannot_be_reached_has_no_time(path) -> None:
    z, domain, _ = path
    apart = np.concatenate([z, z[:100] + 1000])
    found = trajectory(apart, np.concatenate([domain, np.full(100, 4)]), 2, seed=0)
    assert np.isnan(found.pseudotime[N:]).all()
    assert np.isfinite(found.pseudotime[:N]).all()
    assert found.connectivity[4].sum() == 0
    assert "no path of neighbours" in found.notes[0]


def test_connectivity_is_edges_over_those_expected() -> None:
    # 4 spots, 1 neighbour each: 0→1, 1→0, 2→1, 3→2; domains 0 0 1 1
    found = paga(np.array([[1], [0], [1], [2]]), np.array([0, 0, 1, 1]), 2)
    # one edge between; e = (2, 2), n = (2, 2): expected (2·2 + 2·2) / 3
    assert found == pytest.approx(np.array([[0, 3 / 8], [3 / 8, 0]]))


def test_affinities_are_symmetric_and_scaled_locally() -> None:
    graph = affinities(np.array([[1], [0], [1]]), np.array([[2.0], [2.0], [4.0]], np.float32))
    assert (graph != graph.T).nnz == 0
    assert graph[0, 1] == pytest.approx(np.exp(-1))
    assert graph[2, 1] == pytest.approx(np.exp(-16 / 8))


def test_bad_input_is_refused(path) -> None:
    z, domain, _ = path
    with pytest.raises(InputError, match="no spot is in the root domain 7"):
        trajectory(z, domain, 7, seed=0)
    with pytest.raises(InputError, match="needs at least 10"):
        trajectory(z[:4], domain[:4], 2, seed=0)
