"""The label-free card of a run, as the page shows it."""

import json
from pathlib import Path
from typing import Any

from stscale.report.markup import details, paragraph, table

FILE = "quality.json"
NAMES = {
    "told": ("Variance of a spot that its neighbours' domains tell ↑", 4),
    "seeds": ("Agreement of other seeds' mixtures, ARI ↑", 2),
    "halves": ("Agreement of two halves' mixtures, ARI ↑", 2),
    "gain": ("Gain over one Gaussian, nats per spot ↑", 2),
    "chaos": ("CHAOS ↓", 4),
    "pas": ("Abnormal spots, PAS ↓", 4),
    "ilisi": ("Mixing of slices, iLISI (0 … 1) ↑", 3),
    "log_likelihood": ("Log-likelihood, nats per spot", 2),
    "bic": ("BIC per spot", 2),
}


def read_card(run: Path) -> dict[str, Any] | None:
    """Read quality.json of a run; None where there is none."""
    path = run / FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def card(found: dict[str, Any]) -> str:
    """Return the sentence, the table and how it was measured."""
    floor, rows = found["floor"], []
    for key, (title, digits) in NAMES.items():
        components = _number(found["components"].get(key), digits)
        parts = [
            _number(found["embedding"][key], digits),
            *([_number(floor[key], digits)] if floor else []),
            components,
        ]
        if any(parts):
            rows.append([title, *(part or "–" for part in parts)])
    rows.append(["Of the run's own domains: CHAOS ↓", f"{found['run']['chaos']:.4f}", *[""] * (1 + bool(floor))])
    rows.append(["Of the run's own domains: PAS ↓", f"{found['run']['pas']:.4f}", *[""] * (1 + bool(floor))])
    smoothed = [f"Smoothed PCA ({floor['rounds']} rounds)"] if floor else []
    head = ["Without labels", "This embedding", *smoothed, "PCA"]
    on, how = found["compared_on"], found["mixtures"]
    told = (
        f"All embeddings are clustered alike: {found['k']} domains, mixtures with one covariance, {how['starts']} "
        f"starts, {on['mixtures']:,} of {found['spots']:,} spots, drawn in whole tiles. Agreement is between "
        f"{how['seeds']} seeds of the mixture (the embedding is not trained again), and between the halves of "
        f"{how['divisions']} divisions of the tiles. Mixing is among {on['mixing']:,} spots. Likelihood and BIC are in "
        "the scale of their own embedding: compare fits of one embedding by them, not embeddings. What neighbours' "
        "domains tell is a share of the variance of single spots' principal components, in units of noise."
    )
    advice = found.get("scale", {}).get("sentence")
    return (
        paragraph(found["sentence"])
        + (paragraph(advice) if advice else "")
        + details("The card", table(head, rows, numbers=range(1, len(head))) + paragraph(told))
    )


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
