import numpy as np
import pytest
from made_views import views

from stscale.alignment import fit_warp, thin_plate
from stscale.alignment.field import Field
from stscale.alignment.view import channels
from stscale.config import Simulate
from stscale.errors import InputError
from stscale.slices.simulate import Plan
from stscale.slices.tissue import Tissue


@pytest.fixture
def points():
    return np.random.default_rng(0).uniform(0, 100, size=(150, 2))


def bend(at, size=4.0):
    return size * np.stack([np.sin(at[:, 1] / 20), np.cos(at[:, 0] / 25)], axis=1)


def test_a_smooth_displacement_is_recovered(points):
    warp = thin_plate(points, bend(points), stiffness=0.0)
    inner = np.random.default_rng(1).uniform(15, 85, size=(200, 2))
    assert np.abs(warp.apply(inner) - inner - bend(inner)).max() < 0.3
    assert warp.least_area > 0.1
    assert warp.notes == ()
    assert warp.largest == pytest.approx(np.linalg.norm(bend(points), axis=1).max(), rel=1e-6)


def test_an_affine_displacement_does_not_bend(points):
    moves = points @ np.array([[0.02, 0.01], [-0.03, 0.01]]) + 3
    flat, bent = thin_plate(points, moves), thin_plate(points, bend(points))
    assert flat.bending < 1e-8 < 1e-3 < bent.bending
    np.testing.assert_allclose(flat.apply(points), points + moves, atol=1e-6)


def test_stiffness_takes_out_noise(points):
    noise = np.random.default_rng(2).normal(scale=0.5, size=points.shape)
    soft = thin_plate(points, bend(points) + noise, stiffness=0.0)
    stiff = thin_plate(points, bend(points) + noise, stiffness=0.01)
    assert stiff.bending < soft.bending

    def off(warp):
        return np.abs(warp.apply(points) - points - bend(points)).mean()

    assert off(stiff) < 0.8 * off(soft)


def test_a_fold_is_made_stiffer_and_said(points):
    moves = np.zeros_like(points)
    middle = np.linalg.norm(points - 50, axis=1) < 15
    moves[middle] = -2.0 * (points[middle] - 50)  # turns the middle inside out
    warp = thin_plate(points, moves, stiffness=0.0)
    assert warp.least_area > 0.1
    assert "folded" in warp.notes[0]
    assert warp.smoothing > 0


def test_bad_control_points(points):
    line = np.stack([np.arange(10.0), np.arange(10.0)], axis=1)
    with pytest.raises(InputError, match="on one line"):
        thin_plate(line, line)
    with pytest.raises(InputError, match="too few"):
        thin_plate(points[:3], points[:3])
    with pytest.raises(InputError, match="shapes"):
        thin_plate(points, points[:5])
    with pytest.raises(InputError, match="not finite"):
        thin_plate(points, points * np.nan)


def test_a_warped_slice_is_brought_back():
    (a, b), (to_a, to_b) = views(spots=2500, seed=4, warp=0.1, rotation=0.0, shift=0.0, noise=0.2)
    clouds = channels(b, a, width=10)
    true = to_a.compose(to_b.inverse())
    fields = Field.fit(clouds[0]), Field.fit(clouds[1])
    warp = fit_warp(fields, true)
    config = Simulate(warp=0.1, rotation=0.0, shift=0.0)
    tissue = Tissue.build(seed=4, kind=config.kind, domains=config.domains)
    plans = [Plan.build(seed=4, index=i, spots=2500, genes=50, tissue=tissue, config=config) for i in (0, 1)]
    # where a spot of b would lie in a: its true position under a's own warp and matrix
    goal = plans[0].placement.spatial(plans[1].true_um)
    before = np.linalg.norm(true.apply(b.xy) - goal, axis=1)
    after = np.linalg.norm(warp.apply(true.apply(b.xy)) - goal, axis=1)
    assert before.mean() > a.pitch
    assert after.mean() < 0.6 * before.mean()
