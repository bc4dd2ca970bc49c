"""What slices capture: shares of known totals, the response of Poisson counts against its definition."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import poisson

from stscale.slices.capture import FEWEST, GENES, MOST, PRIOR, TOLD, UNLIKE, Capture, captured, moved, spread

SHARE = np.array([0.5, 0.3, 0.2])
LIBRARY = np.array([1e8, 4e8])


def two_slices():
    """Totals of two slices of which the second captures genes unlike the first, and by how much."""
    share = np.array([[1.0, 1.0, 1.0], [0.25, 2.0, 0.875]])
    share[1] /= share[1] @ SHARE  # shares of a slice's counts sum to 1
    return LIBRARY[:, None] * SHARE * share, share


def measured(totals, mean, present, *, kind):
    return Capture.of(captured(totals, mean, present, prior=PRIOR[kind]), mean, present, kind=kind)


def expected(mean):
    """E[√x + √(x + 1) − 1] of Poisson's x."""
    x = np.arange(int(mean + 15 * np.sqrt(mean)) + 60)
    return poisson.pmf(x, mean) @ (np.sqrt(x) + np.sqrt(x + 1) - 1)


@pytest.mark.parametrize("kind", ["slice", "poisson"])
def test_counts_tell_what_a_slice_captures(kind) -> None:
    totals, share = two_slices()
    present = np.ones((2, 3), dtype=bool)
    # so many counts that the root is the response
    got = measured(totals, SHARE * 1e6, present, kind=kind)
    np.testing.assert_allclose(got.gain, share**-0.5, rtol=1e-4)
    np.testing.assert_allclose(got.precision, share, rtol=1e-4)
    np.testing.assert_allclose(got.weight, share if kind == "poisson" else 1.0, rtol=1e-4)
    # few counts: hardly any
    few = measured(np.array([[0.0, 0.0, 1.0]]), SHARE, present[:1], kind=kind)
    assert (np.abs(few.gain - 1) < 1.0 / PRIOR[kind]).all()
    assert (few.gain != 1).any()


@pytest.mark.parametrize("kind", ["slice", "poisson"])
def test_genes_a_slice_lacks_do_not_count_for_the_others(kind) -> None:
    present = np.array([[False, True, True], [True, True, True]])
    totals = np.where(present, 1e6 * SHARE, 0.0)
    got = measured(totals, SHARE, present, kind=kind)
    np.testing.assert_array_equal(got.gain, 1.0)
    np.testing.assert_array_equal(got.precision, present)
    np.testing.assert_array_equal(got.weight, present)
    there = got.columns(np.array([2, 0]))
    np.testing.assert_array_equal(there.precision, [[1, 0], [1, 1]])


def test_a_slice_alone_captures_what_all_do_to_the_bit() -> None:
    totals = np.random.default_rng(0).gamma(0.3, 1000.0, size=(1, 500)).round()
    present = np.ones((1, 500), dtype=bool)
    got = measured(totals, totals[0] / 321, present, kind="poisson")
    for part in (got.gain, got.precision, got.weight):
        np.testing.assert_array_equal(part, 1.0)


@pytest.mark.parametrize("mean", [1e-5, 0.01, 0.3, 1.0, 7.0, 59.0, 3000.0])
def test_response_is_the_derivative_of_the_mean(mean) -> None:
    step = 1e-3
    by_log_mean = (expected(mean * np.exp(step)) - expected(mean * np.exp(-step))) / (2 * step)
    np.testing.assert_allclose(moved(np.array(mean)), by_log_mean, rtol=2e-4)


def test_response_goes_on_beyond_its_table() -> None:
    np.testing.assert_allclose(moved(np.array([FEWEST / 100])), FEWEST / 100 * np.sqrt(2), rtol=1e-4)
    np.testing.assert_allclose(moved(np.array([MOST * 100])), np.sqrt(MOST * 100), rtol=1e-4)
    assert np.isfinite(moved(np.zeros(2))).all()
    assert (moved(np.zeros(2)) > 0).all()


@pytest.mark.parametrize("mean", [0.02, 0.5, 4.0])
@pytest.mark.parametrize("share", [0.2, 3.0])
def test_what_changes_a_gene_changes_its_values_alike_in_every_slice(mean, share) -> None:
    present = np.ones((1, 1), dtype=bool)
    gain = {
        kind: Capture.of(np.array([[share]]), np.array([mean]), present, kind=kind).gain[0, 0]
        for kind in ("slice", "poisson")
    }

    def moves(at):  # a tenth more of the gene than the mean, against a tenth less
        return expected(1.1 * at) - expected(0.9 * at)

    left = {kind: abs(np.log(factor * moves(mean * share) / moves(mean))) for kind, factor in gain.items()}
    assert left["poisson"] < 0.01
    assert left["poisson"] < 0.3 * left["slice"]


def test_shares_are_believed_as_far_as_counts_go() -> None:
    totals, share = two_slices()
    present = np.ones((2, 3), dtype=bool)
    few = captured(totals / 1e6, SHARE, present, prior=100.0)
    np.testing.assert_allclose(few, (totals / 1e6 + 100) / (LIBRARY[:, None] / 1e6 * SHARE + 100))
    assert (np.abs(np.log(few[1])) < np.abs(np.log(share[1]))).all()


def drawn(effect, *, libraries=(1e6, 4e6, 5e5, 2e6), genes=600, seed=0):
    """Totals of slices of unequal depth, the logs of whose shares have the standard deviation asked for."""
    rng = np.random.default_rng(seed)
    share = rng.gamma(2.0, 1.0, genes)
    logs = effect * rng.standard_normal((len(libraries), genes))
    totals = rng.poisson(np.array(libraries)[:, None] * share / share.sum() * np.exp(logs)).astype(np.float64)
    return totals, np.ones(totals.shape, dtype=bool)


@pytest.mark.parametrize("slices", [2, 4])
@pytest.mark.parametrize("effect", [0.0, 0.15, 0.3, 0.8])
def test_spread_is_that_of_the_effects_whatever_the_depth(effect, slices) -> None:
    libraries = (1e6, 4e6, 5e5, 2e6)[:slices]
    assert spread(*drawn(effect, libraries=libraries)) == pytest.approx(effect, abs=0.035 + 0.05 * effect)


def test_spread_has_no_counting_noise() -> None:
    few = drawn(0.0, libraries=(2e5, 2e5, 2e5))
    assert np.median(few[0]) < 500  # noise alone is over 0.04
    assert spread(*few) < 0.02


def test_tissue_that_some_slices_lack_is_not_a_spread() -> None:
    totals, present = drawn(0.05)
    rng = np.random.default_rng(1)
    marked = rng.random(totals.shape[1]) < 0.3
    totals[0, marked] *= 3.0
    totals[1, marked] *= 0.4
    share = totals / totals.sum(axis=1, keepdims=True)
    assert spread(totals, present) < UNLIKE < np.median(np.log(share / share.mean(axis=0)).std(axis=0))


def test_genes_that_one_slice_alone_has_or_few_counts_tell_no_spread() -> None:
    totals, present = drawn(0.4)
    whole = spread(totals, present)
    present[1:, :50], present[0, 50:100] = False, False
    part = np.where(present, totals, 0.0)
    assert spread(part, present) == pytest.approx(whole, abs=0.02)
    silent = np.concatenate([part, np.zeros((len(part), 3))], axis=1)  # genes without a count anywhere
    there = np.concatenate([present, np.ones((len(part), 3), dtype=bool)], axis=1)
    assert spread(silent, there) == spread(part, present)
    assert spread(part[:1], present[:1]) == 0.0
    known = (np.where(present, totals, np.inf).min(axis=0) >= TOLD) & (present.sum(axis=0) > 1)
    for n, told in ((GENES - 1, False), (GENES, True)):
        some = np.flatnonzero(known)[:n]
        assert (spread(totals[:, some], present[:, some]) > 0) == told


def test_a_height_that_was_found_is_told_and_one_asked_for_is_not() -> None:
    totals, present = drawn(0.4)
    asked = measured(totals, totals.mean(axis=0), present, kind="poisson")
    assert asked.notes() == ()
    found = replace(asked, spread=float(np.log(1.5)))
    assert "by a factor of 1.50" in found.notes()[0]
    assert replace(measured(totals, totals.mean(axis=0), present, kind="slice"), spread=0.1).notes() == ()
