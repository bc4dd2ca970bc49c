import numpy as np
import pytest
from made_views import rotation

from stscale.alignment import PairList, Transform, heights, solve_stack
from stscale.errors import InputError

BOXES = np.tile([[0.0, 0.0], [100.0, 80.0]], (4, 1, 1))
NAMES = ("a", "b", "c", "d")


@pytest.fixture
def poses():
    rng = np.random.default_rng(2)
    made = [Transform.from_parts(rotation(a), rng.uniform(-50, 50, 2)) for a in (0, 40, 170, -100)]
    return [Transform.identity(), *made[1:]]


def between(pairs, poses, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    found = []
    for s, t in pairs.pairs:
        off = Transform.from_parts(rotation(noise * rng.normal()), noise * rng.normal(size=2))
        found.append(off.compose(poses[t].inverse().compose(poses[s])))
    return found


def gap(stack, poses):
    corners = BOXES[0][[0, 0, 1, 1], 0], BOXES[0][[0, 1, 0, 1], 1]
    at = np.stack(corners, axis=1)
    return [
        float(np.linalg.norm(a.apply(at) - b.apply(at), axis=1).max())
        for a, b in zip(stack.transforms, poses, strict=True)
    ]


@pytest.mark.parametrize("rule", ["sequential", "star", "all"])
def test_exact_pairs_give_the_exact_frame(rule, poses):
    pairs = PairList.build(NAMES, rule)
    stack = solve_stack(pairs, between(pairs, poses), BOXES)
    assert max(gap(stack, poses)) < 1e-5
    np.testing.assert_allclose(stack.weights, 1.0, atol=1e-6)


def test_sequential_is_the_chain(poses):
    pairs = PairList.build(NAMES)
    edges = between(pairs, poses, noise=1.0)
    stack = solve_stack(pairs, edges, BOXES)
    chain = edges[0].compose(edges[1]).compose(edges[2])
    np.testing.assert_allclose(stack.transforms[3].matrix, chain.matrix, atol=1e-9)
    np.testing.assert_allclose(stack.residuals, 0.0, atol=1e-9)


def test_another_reference_keeps_its_frame(poses):
    pairs = PairList.build(NAMES, "all", reference="c")
    stack = solve_stack(pairs, between(pairs, poses), BOXES)
    np.testing.assert_array_equal(stack.transforms[2].matrix, np.eye(3))
    wanted = [poses[2].inverse().compose(p) for p in poses]
    assert max(gap(stack, wanted)) < 1e-5


def test_cycles_spread_the_error(poses):
    chain, ring = PairList.build(NAMES), PairList.build(NAMES, "all")
    drift, spread = [], []
    for seed in range(6):
        drift.append(max(gap(solve_stack(chain, between(chain, poses, 0.3, seed), BOXES), poses)))
        edges = between(ring, poses, 0.3, seed)
        spread.append(max(gap(solve_stack(ring, edges, BOXES), poses)))
    assert np.mean(spread) < 0.8 * np.mean(drift)


def test_a_wrong_pair_is_named_and_does_not_pull(poses):
    pairs = PairList.build(NAMES, "all")
    edges = between(pairs, poses, 0.02)
    edges[4] = Transform.from_parts(rotation(60), (30, 10)).compose(edges[4])
    stack = solve_stack(pairs, edges, BOXES)
    assert max(gap(stack, poses)) < 0.5
    assert stack.weights[4] < 0.05
    assert np.delete(stack.weights, 4).min() > 0.9
    assert [n for n in stack.notes if "'d', 'b'" in n]


def test_units_and_heights(poses):
    pairs = PairList.build(NAMES)
    known = solve_stack(pairs, between(pairs, poses), BOXES, z=heights(4, spacing=10.0))
    assert known.unit == "µm"
    assert known.z.tolist() == [0, 10, 20, 30]
    unknown = solve_stack(pairs, between(pairs, poses), BOXES, units_known=False)
    assert "micrometres" in unknown.notes[0]
    assert heights(3, z=[0, 5, 7]).tolist() == [0, 5, 7]
    for bad in ({"z": [1.0, 2.0]}, {"z": [0, 1, np.nan]}, {"spacing": 0.0}, {"z": [0, 1, 2], "spacing": 1.0}):
        with pytest.raises(InputError):
            heights(3, **bad)


def test_numbers_that_do_not_fit(poses):
    pairs = PairList.build(NAMES)
    edges = between(pairs, poses)
    with pytest.raises(InputError, match="3 pairs of 4 slices"):
        solve_stack(pairs, edges[:2], BOXES)
    with pytest.raises(InputError, match="above 0"):
        solve_stack(pairs, edges, BOXES, weights=[1.0, 0.0, 1.0])
    with pytest.raises(InputError, match="heights"):
        solve_stack(pairs, edges, BOXES, z=np.zeros(2))
