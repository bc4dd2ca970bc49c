"""The bank of training latents: what is held out, what is usual, and what is novel."""

import numpy as np
import pytest

from stscale.analysis import mapping
from stscale.analysis.mapping import Bank, judge, profile_correlation
from stscale.errors import InputError

TILE = 16


def slices(seed: int = 0, *, shift: float = 0.0, n: int = 640) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((3 * n, 4)).astype(np.float32)
    which = np.repeat(np.arange(3), n)
    z[:, 0] += shift * which
    return z, which


def test_a_slice_like_the_others_has_uniform_confidence() -> None:
    bank = Bank.build(*slices(), tile=TILE, seed=0)
    new = np.random.default_rng(9).standard_normal((2000, 4)).astype(np.float32)
    distance = bank.distance(new)
    confidence = bank.confidence(distance)
    assert 0 < confidence.min() <= confidence.max() <= 1
    # a little above: the new slice may look into three slices, a held-out spot into two
    assert 0.45 < confidence.mean() < 0.65
    found = judge(bank, new, distance, 0.95)
    assert found.verdict == "mapped"
    assert found.reasons == ()
    assert found.outside < 0.08


def test_what_is_usual_is_measured_between_slices() -> None:
    together, apart = (Bank.build(*slices(shift=s), tile=TILE, seed=0) for s in (0.0, 6.0))
    # slices that lie far from each other: another one that does is nothing unusual
    assert np.median(apart.usual) > 3 * np.median(together.usual)
    far = slices(shift=6.0)[0][:50]
    assert apart.confidence(apart.distance(far)).min() > together.confidence(together.distance(far + 8)).max()


def test_a_slice_out_of_reach_is_novel_and_every_reason_is_told() -> None:
    bank = Bank.build(*slices(), tile=TILE, seed=0)
    z = np.full((200, 4), 5, np.float32)
    found = judge(bank, z, bank.distance(z), 0.1)
    assert found.verdict == "novel"
    assert found.outside == 1.0
    assert found.spread == 0.0
    assert [word in "; ".join(found.reasons) for word in ("lie further", "correlates 0.10", "vary 0.00")] == [True] * 3
    assert judge(bank, z[:1], bank.distance(z[:1]) * 0, 0.9).verdict == "mapped"  # one spot has no spread


def test_a_slice_just_beside_all_that_was_trained_on_is_novel() -> None:
    bank = Bank.build(*slices(), tile=TILE, seed=0)
    z = slices(5)[0][:400]
    at = np.quantile(bank.usual, [0.8, 0.9])  # none of them far outside
    near, beside = (judge(bank, z, np.full(len(z), d), 0.9) for d in at)
    assert near.verdict == "mapped"
    assert beside.verdict == "novel"
    assert beside.outside == near.outside == 0.0
    assert len(beside.reasons) == 1
    assert beside.reasons[0].startswith("half of its spots lie further")


def test_held_out_tiles_are_not_in_the_bank_of_a_single_slice() -> None:
    n = 40 * TILE
    z = np.arange(n, dtype=np.float32)[:, None] * np.ones((1, 2), np.float32)
    bank = Bank.build(z, np.zeros(n, int), tile=TILE, seed=3, share=0.25)
    kept = bank.latents[:, 0].astype(int)
    gone = np.setdiff1d(np.arange(n), kept)
    assert len(bank.usual) == len(gone) == n // 4
    assert set(gone // TILE) & set(kept // TILE) == set()
    with pytest.raises(InputError, match="too few to say what is usual"):
        Bank.build(z[:TILE], np.zeros(TILE, int), tile=TILE, seed=0)


def test_bank_is_bounded_and_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "BANK", 100)
    monkeypatch.setattr(mapping, "HELD_OUT", 60)
    a, b, c = (Bank.build(*slices(), tile=TILE, seed=s) for s in (1, 1, 2))
    assert a.latents.shape == (100, 4)
    assert len(a.usual) == 60
    assert np.array_equal(a.latents, b.latents)
    assert np.array_equal(a.usual, b.usual)
    assert not np.array_equal(a.latents, c.latents)
    z = slices()[0]
    monkeypatch.setattr(mapping, "ROWS", 7)
    whole = a.distance(z[:40])
    monkeypatch.setattr(mapping, "ROWS", 1000)
    assert np.allclose(whole, a.distance(z[:40]))


def test_profile_correlation_reads_shared_genes_only() -> None:
    own = np.array([1.0, 2.0, 3.0, 99.0, 4.0])
    known = np.array([[2.0, 4.0, 6.0, 0.0, 8.0], [3.0, 1.0, 2.0, 5.0, 0.0]])
    mask = np.ones((2, 5), bool)
    shared = np.array([True, True, True, False, True])
    assert profile_correlation(own, known, shared, mask) == pytest.approx(1.0)
    assert profile_correlation(np.zeros(5), known, shared, mask) == 0.0
