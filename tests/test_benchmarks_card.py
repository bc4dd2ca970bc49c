"""The benchmarks of the label-free card and of K: counts against the labels, errors, and their tables."""

import numpy as np
import pytest

from benchmarks import card, k, readme_card
from stscale.analysis import fit_mixture


def case(name: str, seed: int, aris: tuple[float, float], verdict: str, gain: float) -> dict:
    better = aris[0] - aris[1] > card.MARGIN
    one = {"told": 0.2, "seeds": 0.5, "halves": 0.4, "gain": 1.0, "chaos": 0.1, "pas": 0.02, "ilisi": None}
    return {
        "set": name,
        "seed": seed,
        "pair": "learned",
        "ari": list(aris),
        "measures": [{**one, "gain": 1.0 + gain}, one],
        "verdict": verdict,
        "better": better,
        "agrees": (verdict == "better") == better,
    }


CASES = [
    case("a", 0, (0.60, 0.50), "better", 0.4),
    case("a", 1, (0.51, 0.50), "better", 0.3),  # too little to count
    case("b", 0, (0.40, 0.50), "not better", -0.2),
    case("c", 0, (0.70, 0.50), "not better", 0.5),
]


def test_verdicts_are_counted_against_the_labels() -> None:
    found = card.summary(CASES)
    assert set(found) == {"learned"}
    assert (found["learned"]["cases"], found["learned"]["agree"]) == (4, 2)
    assert list(found["learned"]["table"].values()) == [1, 1, 1, 1]
    assert found["learned"]["median_gap"] == pytest.approx({"better": 0.055, "not better": 0.05})
    assert found["learned"]["spearman_with_ari"]["gain"] == pytest.approx(1.0)
    assert "ilisi" not in found["learned"]["spearman_with_ari"]


def test_every_case_is_in_the_table() -> None:
    environment = {"threads": 1, "date": "2026-01-01"}
    results = {"margin": card.MARGIN, "smoke": False, "environment": environment, "cases": CASES}
    results |= {"summary": card.summary(CASES), "cost": {"quality": 2.0, "rest": 40.0, "share": 0.05}}
    text = readme_card.card(results)
    assert "| 2 of 4 | 1 | 1 | 1 | 1 |" in text
    assert "| a | learned against smoothed PCA | 0.600; 0.510 | 0.500; 0.500 |" in text
    assert "better; better (wrong)" in text
    others = [{**CASES[2], "pair": "smooth"}, {**CASES[3], "pair": "wide"}]
    text = readme_card.card({**results, "cases": others, "summary": card.summary(others)})
    assert "| b | smoothed PCA" not in text
    assert "| c | PCA smoothed over 8 rounds" in text
    assert "takes 2.0 s of one core, the rest of the run 40 s (5%)" in text


def test_error_and_range_of_k() -> None:
    def row(default: int, low: int, high: int) -> dict:
        return {"k": dict.fromkeys(k.TITLES, default), "range": [low, high], "rule": "knee", "seconds": 1.0}

    sets = {"a": {"k": 7, "smooth": row(5, 4, 7)}, "b": {"k": 6, "smooth": row(7, 7, 9)}}
    found = k.summary(sets)
    assert set(found) == {"smooth"}
    assert found["smooth"]["error"]["default"] == pytest.approx(1.5)
    assert found["smooth"]["bias"]["default"] == pytest.approx(-0.5)
    assert (found["smooth"]["within_range"], found["smooth"]["range_width"]) == (0.5, 2.5)
    text = readme_card.k(
        {"sets": sets, "summary": found, "smoke": False, "environment": {"threads": 1, "date": "2026-01-01"}}
    )
    assert "| a | 7 | 5 (4–7) |" in text
    assert "1.50 (-0.50)" in text


def test_estimators_find_clear_domains() -> None:
    rng = np.random.default_rng(0)
    z = np.concatenate([rng.normal(size=(200, 4)) + 9 * np.eye(4)[c] for c in range(4)]).astype(np.float32)
    found = k.estimates(z, 0)
    assert {found["k"][name] for name in ("default", "minimum", "icl", "silhouette")} == {4}
    assert found["range"] == [4, 4]
    fit = fit_mixture(z, 4, starts=9, seed=0)
    assert k._entropy(fit, z) < 1.0
