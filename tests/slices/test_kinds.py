from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from made_slices import crossed, off

from stscale.slices import kinds
from stscale.slices.kinds import beside_kinds, find_kinds
from stscale.slices.shared_kinds import nearest, step

P = 5
LAYERS = np.random.default_rng(3).normal(size=(8, P)) * 3.0
"""Where eight kinds of tissue lie on the axes."""


def slab(first, last, n, *, seed, noise=0.8):
    """Rows of such a slice, and their layers."""
    layer = crossed(first, last, n, times=6)
    return LAYERS[layer] + noise * np.random.default_rng(seed).standard_normal((n, P)), layer


def slices(parts, *, effect, noise=0.8):
    """Rows around the slices' own means, slices, layers, and where the means lie around the common one."""
    rng = np.random.default_rng(11)
    made = [slab(first, last, n, seed=seed, noise=noise) for seed, (first, last, n) in enumerate(parts)]
    rows = np.concatenate([rows + effect * rng.standard_normal(P) for rows, _ in made])
    group = np.repeat(np.arange(len(parts)), [n for _, _, n in parts])
    means = np.stack([rows[group == i].mean(axis=0) for i in range(len(parts))])
    return rows - means[group], group, np.concatenate([layer for _, layer in made]), means - rows.mean(axis=0)


UNEQUAL = ((0, 5, 700), (3, 8, 400), (0, 8, 1000))
ALIKE = ((0, 8, 700), (0, 8, 400), (0, 8, 1000))


@pytest.mark.parametrize("effect", [0.0, 0.5])
def test_slices_of_unequal_tissue_are_moved_to_what_they_share(effect) -> None:
    rows, group, layer, apart = slices(UNEQUAL, effect=effect)
    found = find_kinds(rows, group, apart, seed=0)
    assert found.moved
    assert kinds.GAIN < found.gain < 1
    assert found.centres.shape == (kinds.KEEP.steps[-1], P)
    own, moved = (off(rows + d[group], group, layer, (3, 4)) for d in (np.zeros((3, P)), found.move))
    assert own > 1.0
    assert moved < 0.15
    # all rows together stay where they were
    assert np.allclose((rows + found.move[group]).mean(axis=0), 0.0, atol=1e-9)
    assert len(found.notes()) == 1
    assert f"{100 * found.gain:.1f} %" in found.notes()[0]


def test_one_slice_among_many_is_found() -> None:
    rows, group, layer, apart = slices(((0, 5, 400), *[(0, 8, 400)] * 11), effect=0.5, noise=0.4)
    found = find_kinds(rows, group, apart, seed=0)
    assert found.moved
    assert found.own.argmax() == 0
    assert found.own[0] > kinds.OWN > found.own[1:].max()
    first = np.minimum(group, 1)  # beside all others together
    own, moved = (off(rows + d[group], first, layer, range(5)) for d in (np.zeros((12, P)), found.move))
    assert moved < 0.1 * own


@pytest.mark.parametrize("effect", [0.0, 0.5, 3.0])
def test_slices_of_the_same_tissue_keep_their_means(effect) -> None:
    rows, group, _, apart = slices(ALIKE, effect=effect)
    found = find_kinds(rows, group, apart, seed=0)
    assert found.gain < kinds.GAIN
    assert not found.move.any()
    assert not found.moved
    assert found.notes() == ()
    assert found.centres.shape == (0, P)


def test_slices_that_share_no_kind_of_tissue_stay_where_they_are_around_the_common_mean() -> None:
    rows, group, _, apart = slices(((0, 3, 500), (5, 8, 500)), effect=0.0, noise=0.2)
    fit = kinds.KEEP.moved(rows, group, apart, 0)
    assert np.allclose(fit.move, apart, atol=1e-6)


def test_the_step_is_that_of_least_squares() -> None:
    rng = np.random.default_rng(5)
    s, k, n = 4, 3, 300
    group, label = rng.integers(0, s, n) ** 2 % s, rng.integers(0, k, n)
    group[:s], label[:k] = np.arange(s), np.arange(k)
    rows = rng.standard_normal((n, P)) + 2.0 * rng.standard_normal((s, P))[group] + group[:, None] * label[:, None]
    count, total = np.zeros((s, k)), np.zeros((s, k, P))
    np.add.at(count, (group, label), 1.0)
    np.add.at(total, (group, label), rows)
    found = step(count, total)
    # y + d − m = 0 in least squares, over d and m together
    design = np.hstack([np.eye(s)[group], -np.eye(k)[label]])
    want = np.linalg.lstsq(design, -rows, rcond=None)[0][:s]
    assert np.allclose(found - found.mean(axis=0), want - want.mean(axis=0), atol=1e-8)


def test_a_search_ends_in_means_of_kinds_and_never_gets_worse() -> None:
    rows, group, _, apart = slices(UNEQUAL, effect=0.5)
    fit = kinds.KEEP.moved(rows, group, apart, 0)
    moved = rows + fit.move[group]
    label, left = nearest(moved, fit.centres)
    assert np.allclose(left, ((moved - fit.centres[label]) ** 2).sum(axis=1))
    assert left.sum() == pytest.approx(fit.left)
    for at in (np.zeros_like(apart), apart):
        assert fit.left < kinds.KEEP.kept(rows, group, at, 0).left


def test_one_slice_is_not_moved() -> None:
    rows, group, _, apart = slices(((0, 8, 600),), effect=0.0)
    found = find_kinds(rows, group, apart, seed=0)
    assert np.isnan(found.gain)
    assert not found.moved
    assert found.centres.shape == (0, P)


@pytest.mark.parametrize("n", [1, kinds.FEWEST - 1])
def test_few_averages_tell_nothing(n) -> None:
    rows, group, _, apart = slices(((0, 8, n),), effect=0.0)
    found = find_kinds(rows, group, apart, seed=0)
    assert found.centres.shape == (0, P)
    assert not found.moved
    known = replace(found, centres=LAYERS, move=np.ones((1, P)))
    assert not beside_kinds(rows, known, apart[0]).moved
    assert beside_kinds(np.ones((500, P)), known, apart[0]).moved


def test_slices_of_a_few_spots_are_taken_along() -> None:
    rows, group, _, apart = slices((*UNEQUAL, (2, 4, 1)), effect=0.0)
    found = find_kinds(rows, group, apart, seed=0)
    assert found.moved
    assert np.isfinite(found.move).all()
    assert np.isfinite(found.own).all()


@pytest.mark.parametrize(("first", "last"), [(0, 8), (4, 8), (0, 4)])
def test_a_new_slice_is_moved_where_those_of_the_run_were(first, last) -> None:
    rows, group, layer, apart = slices(UNEQUAL, effect=0.0)
    known = find_kinds(rows, group, apart, seed=0)
    new, at = slab(first, last, 400, seed=9)
    common = np.concatenate([slab(*part, seed=s)[0] for s, part in enumerate(UNEQUAL)]).mean(axis=0)
    found = beside_kinds(new - new.mean(axis=0), known, new.mean(axis=0) - common + 0.3)
    moved, own = rows + known.move[group], new - new.mean(axis=0)
    apart = {
        name: np.mean([np.linalg.norm(z[at == k].mean(axis=0) - moved[layer == k].mean(axis=0)) for k in np.unique(at)])
        for name, z in (("kinds", own + found.move[0]), ("own", own))
    }
    assert apart["kinds"] < 0.3
    assert apart["kinds"] < (1.0 if last - first == 8 else 0.3) * apart["own"]


def test_a_slice_given_again_lies_where_it_lay() -> None:
    rows, group, _, apart = slices(UNEQUAL, effect=0.5)
    known = find_kinds(rows, group, apart, seed=0)
    for i in range(3):
        found = beside_kinds(rows[group == i], known, apart[i])
        assert np.allclose(found.move[0], known.move[i], atol=0.02)


def test_averages_are_of_windows_over_every_slice(monkeypatch) -> None:
    rng = np.random.default_rng(2)
    offsets = np.array([0, 300, 420, 2000])
    xy, scores = rng.random((2000, 2)), rng.standard_normal((2000, P)).astype(np.float32)
    asked = []

    def read(lo, hi):
        asked.append((lo, hi))
        return scores[lo:hi]

    rows, group = kinds.averages(read, xy, offsets)
    assert asked == list(pairwise(offsets.tolist()))
    assert np.bincount(group).tolist() == [300, 120, 1580]
    near = np.argsort(((xy[:300, None] - xy[None, :300]) ** 2).sum(axis=2), axis=1)[:, :7]
    once = np.zeros((300, 300))
    np.put_along_axis(once, near, 1 / 7, axis=1)
    assert np.allclose(rows[:300], once @ once @ scores[:300], atol=1e-6)

    asked.clear()
    for name, value in (("AVERAGES", 200), ("MANY", 100), ("WINDOW", 40), ("WINDOWS", 5), ("FEWEST", 20)):
        monkeypatch.setattr(kinds, name, value)
    rows, group = kinds.averages(read, xy, offsets)
    assert max(hi - lo for lo, hi in asked) == 40 * 4 - 40  # the small slice is looked at whole
    assert len(asked) == 5 + 1 + 5
    assert asked[-1] == (1960, 2000)
    assert len(rows) == len(group) <= 220
    assert np.bincount(group).min() >= 20
