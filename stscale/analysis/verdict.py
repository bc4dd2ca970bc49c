"""Whether a learned embedding earns its training: a written rule over two quality cards, no label in it."""

from dataclasses import dataclass
from typing import Literal

from stscale.analysis.card import Measures

MORE = 0.05
"""By what share its domains must tell more of the spots around them (`told`)."""

LEAST = 0.002
"""What they must tell more at least, and at all: less is what chance tells."""

ROUGHER = 0.15
"""By what share the abnormal spots (PAS) may be more, then."""

LESS = 0.02
"""By what share domains may tell less where they are far smoother."""

FAR_SMOOTHER = 0.5
"""Abnormal spots of these, at most, in those of the floor."""


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

    It is when its domains tell clearly more of the spots around them and are hardly rougher in space: `told` at least
    1 + `MORE` times the floor's and `LEAST` above it, `pas` at most 1 + `ROUGHER` times. It also is when they tell as
    much, less `LESS`, and are far smoother: `FAR_SMOOTHER`. Agreement of mixtures (`seeds`, `halves`) has no say: an
    embedding can fall apart into the same wrong domains each time. Nor has mixing (`ilisi`): training raises it,
    whether the domains become truer or not.
    """
    if learned.told is None or floor.told is None or learned.pas is None or floor.pas is None:
        return Verdict(verdict="unknown", sentence="There is too little to judge the embedding by without labels.")
    numbers = (
        f"domains around a spot tell {learned.told:.1%} of it, those of smoothed PCA {floor.told:.1%}; abnormal spots "
        f"{learned.pas:.1%} and {floor.pas:.1%}"
    )
    enough = max((1 + MORE) * floor.told, max(floor.told, 0.0) + LEAST)
    tells_more = learned.told >= enough and learned.pas <= (1 + ROUGHER) * floor.pas
    as_much = max((1 - LESS) * floor.told, LEAST)
    smoother = learned.told >= as_much and learned.pas <= FAR_SMOOTHER * floor.pas < floor.pas
    if tells_more or smoother:
        said = f"The learned embedding is better than smoothed PCA by what can be told without labels ({numbers})."
        return Verdict(verdict="better", sentence=said)
    said = (
        "Smoothed PCA is as good here by what can be told without labels; --method smooth gives it in seconds "
        f"({numbers})."
    )
    return Verdict(verdict="not better", sentence=said)
