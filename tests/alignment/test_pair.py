import numpy as np
import pytest
from made_views import errors, rotation, views

from stscale.alignment import SliceView, Transform, align_pair, channels, match, pair
from stscale.alignment.pair import Level
from stscale.config import Align
from stscale.errors import InputError

QUICK = Align(rotations=36, starts=6)


def truth(truths):
    return truths[0].compose(truths[1].inverse())


@pytest.mark.parametrize("turn", [0, 37, 90, 143, 180, 271])
def test_every_angle_at_full_overlap(turn):
    (a, b), truths = views(seed=turn % 3, turn=turn)
    found = align_pair(b, a, QUICK)
    degrees, pitches = errors(found.transform, truth(truths), b)
    assert degrees <= 0.5
    assert pitches <= 0.5
    assert min(found.coverage) > 0.98
    assert found.credible
    assert not found.mirror
    assert found.notes == ()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_partial_overlap(seed):
    (a, b), truths = views(seed=seed, overlap=0.4, turn=70)
    found = align_pair(b, a, QUICK)
    degrees, pitches = errors(found.transform, truth(truths), b)
    assert degrees <= 2
    assert pitches <= 1
    assert 0.3 < max(found.coverage) < 0.5


@pytest.mark.parametrize("kind", ["similarity", "affine"])
def test_a_free_scale_is_found(kind):
    (a, b), truths = views(seed=1, scale=0.2, turn=120)
    found = align_pair(b, a, Align(kind=kind, rotations=36, starts=6))
    degrees, pitches = errors(found.transform, truth(truths), b)
    assert found.transform.kind == kind
    assert found.transform.scale == pytest.approx(truth(truths).scale, rel=0.01)
    assert degrees <= 1
    assert pitches <= 0.75


def test_a_mirrored_slice_is_reported_and_not_flipped():
    (a, b), truths = views(seed=0)
    over = Transform.from_parts(np.diag([-1.0, 1.0]), np.zeros(2))
    flipped = SliceView.build("face down", over.apply(b.xy), b.z)
    refused = align_pair(flipped, a, QUICK)
    assert refused.mirror
    assert not refused.transform.mirror
    assert "'face down' seems to be mirrored" in refused.notes[0]
    taken = align_pair(flipped, a, Align(rotations=36, starts=6, allow_mirror=True))
    assert taken.mirror
    assert taken.transform.mirror
    wanted = truth(truths).compose(over.inverse())
    assert np.linalg.norm(taken.transform.apply(flipped.xy) - wanted.apply(flipped.xy), axis=1).max() < a.pitch


def test_a_mirrored_slice_is_reported_where_slices_overlap_in_part():
    (a, b), truths = views(seed=1, overlap=0.4)
    over = Transform.from_parts(np.diag([-1.0, 1.0]), np.zeros(2))
    flipped = SliceView.build("face down", over.apply(b.xy), b.z)
    found = align_pair(flipped, a, Align(rotations=36, starts=6, allow_mirror=True))
    assert found.mirror
    degrees, pitches = errors(found.transform, truth(truths).compose(over.inverse()), flipped)
    assert degrees <= 2
    assert pitches <= 1


def test_an_edge_on_an_edge_is_no_overlap():
    (a, b), _ = views(seed=0)
    clouds = channels(a, b)
    level = Level.build(clouds, most=5000, erode=True, rng=np.random.default_rng(0))
    width = float(np.ptp(a.xy[:, 0]))
    apart = Transform.from_parts(np.eye(2), [width - 2 * a.pitch, 0.0])
    same = Level.build((clouds[0], clouds[0]), most=5000, erode=True, rng=np.random.default_rng(0))
    assert same.shared(Transform.identity()) == 1
    assert same.fields[0].covers(apart.apply(a.xy)) > 0.04
    assert same.shared(apart) < 0.01
    assert level.shared(Transform.from_parts(np.eye(2), [10 * width, 0.0])) == 0


@pytest.mark.parametrize("seed", [5, 9, 11])
def test_slices_of_other_tissue_are_said(seed):
    (a, _), _ = views(seed=0)
    (other, _), _ = views(seed=seed)
    found = align_pair(other, a, QUICK)
    assert not found.credible
    assert "do not trust" in found.notes[-1]


def test_noise_is_said():
    (a, b), _ = views(seed=0)
    noise = np.random.default_rng(0).standard_normal(b.z.shape)
    found = align_pair(SliceView.build("noise", b.xy, noise), a, QUICK)
    assert not found.credible
    assert "'noise' and 's0' agree no better" in found.notes[-1]


def test_a_constant_offset_between_the_slices_moves_nothing():
    (a, b), truths = views(seed=2, turn=50)
    shifted = SliceView.build("b", b.xy, b.z + 0.3)
    assert errors(align_pair(shifted, a, QUICK).transform, truth(truths), b)[1] <= 0.5


def test_the_same_seed_gives_the_same_result():
    (a, b), _ = views(spots=600, turn=20)
    first, second = (align_pair(b, a, QUICK, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.transform.matrix, second.transform.matrix)
    np.testing.assert_array_equal(first.matches.source, second.matches.source)


def test_inputs_are_left_alone():
    (a, b), _ = views(spots=300)
    kept = [array.copy() for view in (a, b) for array in (view.xy, view.z)]
    for view in (a, b):
        view.xy.setflags(write=False)
        view.z.setflags(write=False)
    align_pair(b, a, Align(rotations=12, starts=3, warp=True))
    for before, after in zip(kept, (a.xy, a.z, b.xy, b.z), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_warp_is_reported():
    (a, b), _ = views(seed=4, warp=0.1, rotation=0.0, shift=0.0)
    found = align_pair(b, a, Align(rotations=36, starts=6, warp=True))
    assert found.warp is not None
    assert found.warp.bending > 0
    assert found.warp.least_area > 0


@pytest.mark.parametrize(
    ("xy", "z", "said"),
    [
        (np.zeros((30, 3)), np.ones((30, 4)), "plane"),
        (np.random.default_rng(0).random((30, 2)), np.ones((29, 4)), "30 spots and latents"),
        (np.random.default_rng(0).random((5, 2)), np.ones((5, 4)), "at least 20"),
        (np.random.default_rng(0).random((30, 2)), np.full((30, 4), np.nan), "without position or embedding"),
        (np.outer(np.arange(30.0), [1, 2]), np.ones((30, 4)), "on one line"),
    ],
)
def test_bad_slices(xy, z, said):
    with pytest.raises(InputError, match=said):
        SliceView.build("x", xy, z)


def test_latents_that_cannot_be_compared():
    (a, b), _ = views(spots=300)
    with pytest.raises(InputError, match="all alike"):
        align_pair(SliceView.build("b", b.xy, np.ones_like(b.z)), SliceView.build("a", a.xy, np.ones_like(a.z)), QUICK)
    with pytest.raises(InputError, match="12 columns"):
        align_pair(b, SliceView.build("a", a.xy, a.z[:, :5]), QUICK)


def test_matches_lie_near_the_truth_and_are_few():
    (a, b), truths = views(seed=0, noise=0.2)
    rng = np.random.default_rng(0)
    found = match(b, a, channels(b, a), rng=rng, anchors=800)
    assert 50 < len(found) <= 800
    assert len(np.unique(found.source)) == len(found)
    assert ((found.weight > 0) & (found.weight <= 1)).all()
    gap = np.linalg.norm(truth(truths).apply(b.xy[found.source]) - a.xy[found.target], axis=1)
    chance = np.linalg.norm(truth(truths).apply(b.xy[found.source]) - a.xy[rng.permutation(found.target)], axis=1)
    assert np.median(gap) < 0.3 * np.median(chance)


def test_rotation_helper_turns_counter_clockwise():
    np.testing.assert_allclose(rotation(90) @ [1, 0], [0, 1], atol=1e-12)


@pytest.mark.parametrize(
    ("share", "second", "tries", "credible"),
    [(1.0, 0.0, [3], False), (0.8, 0.0, [3, 9], True), (0.8, 1.0, [3, 9], False), (0.6, 1.0, [3], True)],
    ids=["no better than chance", "doubtful and believed", "doubtful and not believed", "clear"],
)
def test_only_a_doubtful_pair_is_compared_with_more_searches_by_chance(monkeypatch, share, second, tries, credible):
    (a, b), _ = views(seed=0)
    score = align_pair(b, a, QUICK).score
    asked = []

    def null(*_, tries=pair.SCRAMBLES):
        asked.append(tries)
        return score * (share if len(asked) == 1 else second)

    monkeypatch.setattr(pair, "_null_score", null)
    found = align_pair(b, a, QUICK)
    assert asked == tries
    assert found.credible is credible
    assert any("do not trust" in note for note in found.notes) is not credible
