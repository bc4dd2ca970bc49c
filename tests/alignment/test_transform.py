import json

import numpy as np
import pytest
from made_views import rotation

from stscale.alignment import Transform, procrustes, robust_fit
from stscale.errors import InputError


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def placed(kind, angle=37.0, scale=1.3, shift=(5.0, -2.0)):
    linear = rotation(angle)
    if kind != "rigid":
        linear = scale * linear
    if kind == "affine":
        linear = linear @ np.array([[1.0, 0.2], [0.0, 0.8]])
    return Transform.from_parts(linear, shift, kind)


@pytest.mark.parametrize("kind", ["rigid", "similarity", "affine"])
def test_procrustes_returns_the_exact_transform(kind, rng):
    x = rng.normal(size=(30, 2)) + 1e4
    true = placed(kind)
    found = procrustes(x, true.apply(x), rng.random(30), kind=kind)
    np.testing.assert_allclose(found.linear, true.linear, atol=1e-8)
    np.testing.assert_allclose(found.apply(x), true.apply(x), atol=1e-6)


def test_procrustes_weighs(rng):
    x = rng.normal(size=(30, 2))
    true = placed("rigid")
    y = true.apply(x)
    y[20:] += 50
    w = np.r_[np.ones(20), np.zeros(10)]
    np.testing.assert_allclose(procrustes(x, y, w).matrix, true.matrix, atol=1e-9)


def test_weighted_procrustes_has_the_least_loss(rng):
    x, y, w = rng.normal(size=(40, 2)), rng.normal(size=(40, 2)), rng.random(40)
    best = procrustes(x, y, w, kind="similarity")

    def loss(t):
        return float(w @ ((t.apply(x) - y) ** 2).sum(axis=1))

    for turn, grow, dx in [(0.5, 1.0, 0.0), (-0.5, 1.0, 0.0), (0.0, 1.01, 0.0), (0.0, 0.99, 0.0), (0.0, 1.0, 0.01)]:
        other = Transform.from_parts(grow * rotation(turn), (dx, 0.0), "similarity").compose(best)
        assert loss(other) > loss(best)


def test_a_mirror_image_is_not_returned_unless_allowed(rng):
    x = rng.normal(size=(20, 2))
    y = x * [1.0, -1.0]
    assert not procrustes(x, y).mirror
    assert procrustes(x, y, allow_mirror=True).mirror
    with pytest.raises(InputError, match="mirror"):
        procrustes(x, y, kind="affine")


def test_inverse_compose_and_json(rng):
    x = rng.normal(size=(10, 2))
    a, b = placed("affine"), placed("rigid", angle=-80)
    np.testing.assert_allclose(a.inverse().apply(a.apply(x)), x, atol=1e-12)
    np.testing.assert_allclose(a.compose(b).apply(x), a.apply(b.apply(x)), atol=1e-12)
    assert a.compose(b).kind == "affine"
    back = Transform.from_dict(json.loads(json.dumps(a.to_dict())))
    np.testing.assert_array_equal(back.matrix, a.matrix)
    assert back.kind == "affine"


@pytest.mark.parametrize("mirror", [False, True])
def test_parts_are_read_from_the_matrix(mirror):
    linear = 2.0 * rotation(-150) @ np.diag([1.0, -1.0 if mirror else 1.0])
    t = Transform.from_parts(linear, (1, 2), "similarity")
    assert t.mirror is mirror
    assert t.rotation_degrees == pytest.approx(-150)
    assert t.scale == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("kind", "matrix", "said"),
    [
        ("rigid", np.eye(4), r"\(3, 3\)"),
        ("rigid", np.zeros((3, 3)) + np.diag([0, 0, 1]), "singular"),
        ("rigid", np.diag([2.0, 2.0, 1.0]), "not rigid"),
        ("similarity", np.diag([2.0, 1.0, 1.0]), "not similarity"),
        ("rigid", np.full((3, 3), np.nan), "finite"),
        ("stretch", np.eye(3), "kind"),
    ],
)
def test_bad_matrices_are_refused(kind, matrix, said):
    with pytest.raises(InputError, match=said):
        Transform(kind=kind, matrix=matrix)


def test_volumes_are_refused():
    with pytest.raises(InputError, match="plane"):
        Transform.identity().apply(np.zeros((4, 3)))


LINE = np.stack([np.arange(10.0), 2 * np.arange(10.0)], axis=1)


@pytest.mark.parametrize(
    ("x", "y", "w", "kind", "said"),
    [
        (np.zeros((5, 2)), np.eye(5)[:, :2], None, "rigid", "distinct source"),
        (LINE, LINE, np.zeros(10), "rigid", "weight 0"),
        (LINE, LINE, None, "affine", "one line"),
        (LINE, LINE[:5], None, "rigid", "shapes"),
        (LINE, LINE, -np.ones(10), "rigid", "negative"),
        (LINE * np.nan, LINE, None, "rigid", "finite"),
    ],
)
def test_degenerate_pairs_are_refused(x, y, w, kind, said, rng):
    with pytest.raises(InputError, match=said):
        procrustes(x, y, w, kind=kind)
    with pytest.raises(InputError, match=said):
        robust_fit(x, y, w, kind=kind, rng=rng)


def test_two_pairs_are_too_few_for_a_robust_fit(rng):
    with pytest.raises(InputError, match="at least 3"):
        robust_fit(LINE[:2], LINE[:2], rng=rng)


@pytest.mark.parametrize("kind", ["rigid", "similarity", "affine"])
def test_outliers_do_not_move_a_robust_fit(kind, rng):
    x = rng.uniform(0, 100, size=(300, 2))
    true = placed(kind)
    y = true.apply(x) + rng.normal(scale=0.05, size=x.shape)
    y[:130] = rng.uniform(-100, 300, size=(130, 2))
    fit = robust_fit(x, y, kind=kind, rng=rng)
    assert np.linalg.norm(fit.transform.apply(x) - true.apply(x), axis=1).max() < 0.1
    assert fit.inlier_share == pytest.approx(170 / 300, abs=0.05)
    assert fit.residual < 0.15
    assert not fit.mirror_better


def test_least_squares_would_have_moved(rng):
    x = rng.uniform(0, 100, size=(300, 2))
    y = x.copy()
    y[:130] = rng.uniform(0, 300, size=(130, 2))
    assert np.linalg.norm(procrustes(x, y).apply(x) - x, axis=1).max() > 10


def test_a_mirrored_slice_is_reported_and_taken_only_when_allowed(rng):
    x = rng.uniform(0, 100, size=(200, 2))
    true = Transform.from_parts(rotation(25) @ np.diag([1.0, -1.0]), (3, 4))
    y = true.apply(x) + rng.normal(scale=0.1, size=x.shape)
    refused = robust_fit(x, y, rng=rng)
    assert refused.mirror_better
    assert "mirror" in refused.note
    assert not refused.transform.mirror
    taken = robust_fit(x, y, rng=rng, allow_mirror=True)
    assert taken.transform.mirror
    assert np.abs(taken.transform.apply(x) - true.apply(x)).max() < 0.2
