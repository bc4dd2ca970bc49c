"""Refinement: known correspondences come back; overlap, coverage and lack of convergence are told."""

import numpy as np
import pytest
from made_tissue import grid, latents, turned

from stscale.alignment import anchor_plan, estimate_overlap, make_anchors, refine
from stscale.alignment.morph import _reliability, morph
from stscale.errors import InputError
from stscale.graphs import knn_graph


def off(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.median(np.linalg.norm(found - truth, axis=1)))


@pytest.mark.parametrize(("degrees", "shift"), [(0.0, (2.0, -1.5)), (6.0, (0.5, 0.5)), (-4.0, (-2.0, 1.0))])
def test_the_displacement_undoes_a_turn_and_a_shift(degrees: float, shift: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    xy = grid()
    start = turned(xy, degrees, shift)
    found = morph(start, xy, latents(xy, rng), latents(xy, rng), pitch=1.0)
    assert found.converged
    assert off(start, xy) > 1
    assert off(found.xy, xy) < 0.25


def test_the_displacement_undoes_a_bend() -> None:
    rng = np.random.default_rng(1)
    xy = grid()
    start = xy + np.c_[4 * ((xy[:, 1] - 17) / 17) ** 2, 1.5 * (xy[:, 0] - 20) * (xy[:, 1] - 17) / 340]
    found = morph(start, xy, latents(xy, rng), latents(xy, rng), pitch=1.0)
    assert off(found.xy, xy) < 0.25 < 0.8 < off(start, xy)


def test_positions_that_are_trusted_hold_where_slices_overlap_in_part() -> None:
    rng = np.random.default_rng(5)
    xy = grid()
    left, right = xy[xy[:, 0] < 26], xy[xy[:, 0] > 14]
    # what the slices do not agree on is smooth too, as of a trained embedding
    bias = 0.6 * np.sin(right @ rng.normal(size=(2, 8)) / 6)
    z, other = latents(left, rng), latents(right, rng) + bias
    moved = {
        trusted: off(morph(left, right, z, other, pitch=1.0, trusted=trusted).xy, left) for trusted in (0.7, np.inf)
    }
    assert moved[0.7] < 0.5 < moved[np.inf]


def test_noise_does_not_shrink_what_is_moved() -> None:
    rng = np.random.default_rng(8)
    xy = grid(30)
    found = morph(xy, xy, latents(xy, rng, 2.0), latents(xy, rng, 2.0), pitch=1.0, trusted=10.0)
    middle = xy - xy.mean(axis=0)
    linear = np.linalg.lstsq(middle, found.xy - found.xy.mean(axis=0), rcond=None)[0]
    assert abs(np.trace(linear) / 2 - 1) < 0.01


def test_only_what_both_halves_tell_is_kept() -> None:
    rng = np.random.default_rng(9)
    xy = grid(30)
    z, other = latents(xy, rng), latents(xy, rng)
    start = turned(xy, 0.0, (0.8, -0.5))
    real = morph(start, xy, z, other, pitch=1.0, trusted=0.7)
    assert real.reliability > 0.9
    assert off(real.xy, xy) < 0.35 < 0.9 < off(start, xy)
    kept = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        noise = rng.normal(size=(2, *z.shape))
        kept.append(morph(xy, xy, *noise, pitch=1.0, trusted=0.7).reliability)
    assert min(kept) >= 0
    assert np.mean(kept) < 0.75 < real.reliability
    move = rng.normal(size=(50, 2))
    assert _reliability(move, move) == 1
    assert _reliability(move, -move) == 0
    assert _reliability(np.zeros((5, 2)), np.zeros((5, 2))) == 0
    assert _reliability(move, np.zeros_like(move)) == 0


def test_a_batch_effect_does_not_displace() -> None:
    rng = np.random.default_rng(2)
    xy = grid()
    shifted = latents(xy, rng) + 3 * rng.normal(size=8)
    found = morph(xy, xy, latents(xy, rng), shifted, pitch=1.0)
    assert off(found.xy, xy) < 0.15
    np.testing.assert_allclose(found.offset, (latents(xy, rng, 0) - shifted).mean(axis=0), atol=0.05)


def test_a_permuted_copy_in_another_frame_is_recovered() -> None:
    rng = np.random.default_rng(3)
    xy = grid()
    z = latents(xy, rng)
    order = rng.permutation(len(xy))  # target j is source order[j]
    start = turned(xy, 5.0, (1.5, -1.0))
    found = refine(start, xy[order], z, z[order], anchors=100)
    best, back = found.plan.best()
    assert (order[best] == np.arange(len(xy))).mean() > 0.97
    assert (back == order).mean() > 0.97
    assert found.coverage == 1.0
    assert found.overlap > 0.9
    assert found.notes == ()
    assert found.error < 1e-3
    source, target = found.plan.marginals()
    assert np.abs(source * len(xy) - 1).mean() < 0.1
    assert np.abs(target * len(xy) - 1).mean() < 0.1


def test_partial_overlap_is_estimated_and_the_rest_is_left_unmatched() -> None:
    rng = np.random.default_rng(4)
    xy = grid(40)
    a, b = xy[xy[:, 0] < 28], xy[xy[:, 0] > 12]
    found = refine(turned(a, 2.0, (0.5, -0.5)), b, latents(a, rng), latents(b, rng), anchors=150)
    truth = float((a[:, 0] > 12).mean())
    assert found.overlap == pytest.approx(truth, abs=0.12)
    best, _ = found.plan.best()
    alone, shared = a[:, 0] < 8, a[:, 0] > 13
    assert (best[alone] >= 0).mean() < 0.02
    assert (best[shared] >= 0).mean() > 0.98
    kept = shared & (best >= 0)
    assert np.median(np.linalg.norm(b[best[kept]] - a[kept], axis=1)) < 1.0
    assert found.coverage == found.plan.coverage == pytest.approx(np.mean(best >= 0))


def test_the_anchors_lead_a_torn_piece_back() -> None:
    rng = np.random.default_rng(0)
    xy = grid()
    z, other = latents(xy, rng), latents(xy, rng)
    right = xy[:, 0] > 26
    torn = xy + np.where(right[:, None], [8.0, 4.0], 0.0)
    distance = {}
    for anchors in (0, 100):
        best, _ = refine(torn, xy, z, other, anchors=anchors, trusted=np.inf).plan.best()
        held = right & (best >= 0)
        distance[anchors] = np.median(np.linalg.norm(xy[best[held]] - xy[held], axis=1))
    assert distance[100] < 1.5 < distance[0]


def test_no_convergence_is_noted() -> None:
    rng = np.random.default_rng(5)
    xy = grid(20)
    z = latents(xy, rng)
    some = rng.random(len(xy)) < 0.7  # exact marginals would carry mass across the slice: no candidate pair does
    found = refine(xy, xy[some], z, z[some], anchors=0, tau=1e6)
    assert any("off by" in note for note in found.notes)
    assert np.isnan(found.anchor_value)


def test_anchor_plan_finds_a_block_that_was_moved() -> None:
    rng = np.random.default_rng(6)
    xy = grid(30)
    a = make_anchors(xy, latents(xy, rng), knn_graph(xy, 6), most=80)
    b = make_anchors(xy[::-1], latents(xy[::-1], rng), knn_graph(xy[::-1], 6), most=80)
    turn = turned(xy, 90, (0, 0))
    c = make_anchors(turn, latents(xy, rng), knn_graph(turn, 6), most=80)
    identity, zero = np.eye(8), np.zeros(8)
    for source in (a, c):
        found = anchor_plan(source, b, identity, zero, overlap=1.0, near=0.0)
        assert found.converged
        np.testing.assert_allclose(found.weights.sum(axis=1), source.mass, atol=1e-9)
        np.testing.assert_allclose(found.weights.sum(axis=0), b.mass, atol=1e-9)
        middle = np.stack([xy[source.owner == i].mean(axis=0) for i in range(80)])
        assert np.median(np.linalg.norm(found.position - middle, axis=1)) < 1.5
    half = anchor_plan(a, b, identity, zero, overlap=0.5)
    assert half.weights.sum() == pytest.approx(0.5, abs=1e-6)
    assert (half.weights.sum(axis=1) <= a.mass + 1e-9).all()


def test_overlap_of_strangers_is_small() -> None:
    rng = np.random.default_rng(8)
    xy = grid(30)
    z = latents(xy, rng)
    a, b = (make_anchors(xy, v, knn_graph(xy, 6), most=80) for v in (z, z + 20 * np.sign(rng.normal(size=8))))
    same, other = (estimate_overlap(a, t, np.eye(8), np.zeros(8), reach=3.5) for t in (a, b))
    assert same == pytest.approx(1.0)
    assert other < 0.05


def test_bad_input() -> None:
    rng = np.random.default_rng(9)
    xy = grid(10)
    z = latents(xy, rng)
    with pytest.raises(InputError, match="source has positions"):
        refine(xy[:5], xy, z, z)
    with pytest.raises(InputError, match="one embedding"):
        refine(xy, xy, z, z[:, :3])
    with pytest.raises(InputError, match="align the slices first"):
        refine(xy + 1000, xy, z, z)
    with pytest.raises(InputError, match="not finite"):
        refine(xy, xy, z, np.where(z > 0, z, np.nan))
    with pytest.raises(InputError, match="at least 20 anchors"):
        refine(xy, xy, z, z, anchors=5)
    with pytest.raises(InputError, match="not both 0"):
        refine(xy, xy, z, z, space=0.0, latent=0.0)
    anchors = make_anchors(xy, z, knn_graph(xy, 6), most=10)
    with pytest.raises(InputError, match="overlap 0"):
        anchor_plan(anchors, anchors, np.eye(8), np.zeros(8), overlap=0.0)
