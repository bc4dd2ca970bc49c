"""Whether a learned embedding earns its training: a written rule over two quality cards, no label in it."""

from dataclasses import dataclass
from typing import Literal

from stscale.analysis.card import Measures

STEADIER = 0.05
"""How much higher the mean of both agreements (over seeds, over halves) must be, in ARI."""

TELLS_LESS = 0.1
"""How many nats less its halves may tell of each other: less is noise."""

ROUGHER = 0.15
"""By what share the abnormal spots (PAS) may be more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the rule says.

    Attributes
    ----------
    verdict
        `"better"`: the learned embedding is better than the floor; `"not better"`; `"unknown"`: nothing to go by.
    sentence
        The same for a reader, with the numbers that decided.
    """

    verdict: Literal["better", "not better", "unknown"]
    sentence: str


def judge(learned: Measures, floor: Measures) -> Verdict:
    """Say whether the learned embedding is better than the untrained one.

    It is when its mixtures agree more, by `STEADIER` in the mean of `seeds` and `halves`; each half tells as much of
    the other (`gain`, less `TELLS_LESS`); and its domains are hardly rougher in space: `pas` at most 1 + `ROUGHER`
    times the floor's. Mixing (`ilisi`) has no say: training raises it, whether the domains become truer or not.
    """
    ours, theirs = _steadiness(learned), _steadiness(floor)
    if ours is None or theirs is None:
        return Verdict(verdict="unknown", sentence="There is too little to judge the embedding by without labels.")
    reasons = []
    if ours < theirs + STEADIER:
        reasons.append(
            f"other seeds and halves of the tissue agree on its domains {ours:.2f}, on the floor's {theirs:.2f}"
        )
    if (learned.gain or 0.0) < (floor.gain or 0.0) - TELLS_LESS:
        reasons.append("they tell less of spots left out")
    if (learned.pas or 0.0) > (1 + ROUGHER) * (floor.pas or 0.0):
        reasons.append(f"they are rougher in space ({learned.pas:.3f} against {floor.pas:.3f} abnormal spots)")
    if reasons:
        return Verdict(
            verdict="not better",
            sentence="Smoothed PCA is as good here by what can be told without labels; --method smooth gives it in "
            f"seconds ({'; '.join(reasons)}).",
        )
    return Verdict(
        verdict="better",
        sentence="The learned embedding is better than smoothed PCA by what can be told without labels (other seeds "
        f"and halves of the tissue agree on its domains {ours:.2f}, on those of smoothed PCA {theirs:.2f}).",
    )


def _steadiness(found: Measures) -> float | None:
    """Mean of both agreements."""
    if found.seeds is None or found.halves is None:
        return None
    return 0.5 * (found.seeds + found.halves)
