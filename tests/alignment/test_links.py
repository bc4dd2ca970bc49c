"""Links between slices laid on each other, against positions that are known."""

from dataclasses import replace

import numpy as np
import pytest
from made_views import rotation

from stscale.alignment import SliceView, Transform, align_pair, joins, links
from stscale.alignment.match import Matches
from stscale.alignment.pair import PairResult
from stscale.config import Align

SIDE = 12


def lattice(shift: float = 0.0) -> np.ndarray:
    at = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij"), axis=-1).reshape(-1, 2)
    return at.astype(np.float64) + np.array([shift, 0.0])


def view(xy: np.ndarray) -> SliceView:
    return SliceView.build("s", xy, np.random.default_rng(0).standard_normal((len(xy), 3)))


def laid(transform: Transform, **changes) -> PairResult:
    none = np.empty(0, np.int64)
    return PairResult(
        **{
            "source": "b",
            "target": "a",
            "transform": transform,
            "score": 1.0,
            "agreement": 1.0,
            "coverage": (1.0, 1.0),
            "residual": 0.0,
            "inlier_share": 1.0,
            "mirror": False,
            "credible": True,
            "notes": (),
            "matches": Matches(source=none, target=none, weight=np.empty(0)),
            "warp": None,
            **changes,
        }
    )


def pairs_of(found) -> set[tuple[int, int]]:
    return set(zip(found[0].tolist(), found[1].tolist(), strict=True))


def test_a_turned_copy_is_linked_spot_by_spot():
    turn = Transform.from_parts(rotation(33.0), np.array([5.0, -2.0]))
    found = links(laid(turn.inverse()), view(turn.apply(lattice())), view(lattice()), 1)
    assert pairs_of(found) == {(i, i) for i in range(SIDE**2)}
    assert len(found[0]) == 2 * SIDE**2  # from both sides


@pytest.mark.parametrize("k", [1, 3])
def test_spots_beyond_the_rim_have_no_link(k):
    found = links(laid(Transform.identity()), view(lattice(shift=8.0)), view(lattice()), k)
    source, target = lattice(8.0)[found[0]], lattice()[found[1]]
    assert np.linalg.norm(source - target, axis=1).max() <= 1.0 + 1e-5
    # rows 8 to 11 lie on the other slice, row 12 one spacing beyond its rim
    assert set(np.unique(source[:, 0])) == {8.0, 9.0, 10.0, 11.0, 12.0}


def test_every_spot_has_its_nearest():
    k = 4
    rng = np.random.default_rng(3)
    a, b = rng.uniform(0, 10, (300, 2)), rng.uniform(0, 10, (200, 2))
    found = pairs_of(links(laid(Transform.identity()), view(b), view(a), k))
    distance = np.linalg.norm(b[:, None] - a[None], axis=2)
    for source, gaps in enumerate(distance):
        for target in np.argsort(gaps)[:k]:
            own = np.sort(np.linalg.norm(a - a[:, None], axis=2), axis=1)[:, k]
            reach = np.quantile(own, 0.95)
            assert ((source, int(target)) in found) or gaps[target] > reach
    both = set()
    for rows, flipped in ((distance, False), (distance.T, True)):
        for one, gaps in enumerate(rows):
            both |= {(int(t), one) if flipped else (one, int(t)) for t in np.argsort(gaps)[:k]}
    assert found <= both


def test_more_links_than_the_other_slice_has_spots():
    small = lattice()[:30]
    found = links(laid(Transform.identity()), view(lattice()), view(small), 50)
    assert np.unique(found[1]).tolist() == list(range(30))
    assert len(pairs_of(found)) <= 30 * SIDE**2


def test_a_fit_that_shows_other_tissue_does_not_join():
    good = laid(Transform.identity())
    assert joins(good)
    assert not joins(replace(good, credible=False))
    assert not joins(replace(good, mirror=True))
    over = Transform.from_parts(np.diag([-1.0, 1.0]), np.zeros(2))
    assert joins(replace(good, mirror=True, transform=over))


def test_a_warp_moves_links():
    class Shifted:
        def apply(self, xy):
            return xy + np.array([1.0, 0.0])

    found = links(laid(Transform.identity(), warp=Shifted()), view(lattice()), view(lattice()), 1)
    inner = {(i, i + SIDE) for i in range(SIDE * (SIDE - 1))}
    assert inner <= pairs_of(found)
    assert all(b == a + SIDE or a >= SIDE * (SIDE - 1) or b < SIDE for a, b in pairs_of(found))


def test_align_pair_is_what_links_read():
    xy = np.random.default_rng(0).uniform(0, 100, (400, 2))
    z = np.stack([np.sin(xy[:, 0] / 20), np.cos(xy[:, 1] / 15), xy.sum(axis=1) / 100], axis=1)
    turn = Transform.from_parts(rotation(50.0), np.array([3.0, 4.0]))
    a, b = SliceView.build("a", xy, z), SliceView.build("b", turn.apply(xy), z)
    pair = align_pair(b, a, Align(rotations=24, starts=4))
    found = links(pair, b, a, 1)
    assert np.mean(found[0] == found[1]) > 0.99
