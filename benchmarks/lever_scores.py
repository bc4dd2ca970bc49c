"""Scores of levers over seeds, and what they are compared with: the reference, and the targets."""

import statistics
from typing import Any

from benchmarks.tissues import SHAPES, STRENGTHS

REFERENCE, NARROW = "default", "narrow"
_EDGE = "boundary_accuracy"
KEPT = (
    *("ari", "nmi", "clustering_accuracy", "boundary_accuracy", "chaos", "pas"),
    *("ilisi", "ilisi_elsewhere", "clisi", "batch_asw", "ceiling"),
)


def summary(runs: list[dict[str, Any]], reference: list[dict[str, Any]]) -> dict[str, Any]:
    """Return median, spread and the mean difference from the reference over the seeds that both have."""
    out: dict[str, Any] = {}
    base = {run["seed"]: run for run in reference}
    for key in KEPT:
        values = [run[key] for run in runs if key in run]
        if not values:
            continue
        gaps = [run[key] - base[run["seed"]][key] for run in runs if run["seed"] in base]
        out[key] = {"median": statistics.median(values), "min": min(values), "max": max(values)}
        out[key]["gain"] = statistics.fmean(gaps) if gaps else None
    return out


def judged(sets: dict[str, Any]) -> dict[str, Any]:
    """Compare what is measured with the targets, by title; simulated tissues enter with every batch effect measured."""
    pairs = [
        [part["levers"].get(key, {"runs": []})["runs"] for key in ("learned", "reconstruction")]
        for part in sets.values()
    ]
    gaps = [summary(*pair).get(_EDGE, {}).get("gain") for pair in pairs if all(pair)]
    edges = ("boundary CA: learned − plain graph autoencoder, smallest of the sets measured", _lowest(gaps), 0.0)
    rows = [*_targets(sets, REFERENCE, ""), edges, *_targets(sets, "joined", " with --align")]
    return {
        title: {"measured": value, "target": target, "at_least": True, "met": value >= target}
        for title, value, target in rows
        if value is not None
    }


def _targets(sets: dict[str, Any], lever: str, said: str) -> list[tuple[str, float | None, float]]:
    """Return title, what one lever reaches (None: not measured) and target."""

    def ratio(shape: str, key: str) -> float | None:
        strong, none = (_mean(sets, f"{shape}-{s}", lever, key) for s in ("strong", "none"))
        return strong / none if strong is not None and none else None

    joint = [run["ari"] for run in sets.get("dlpfc", {"levers": {}})["levers"].get(lever, {"runs": []})["runs"]]
    several = len(joint) > 1
    simulated = [f"{shape}-{strength}" for shape in SHAPES for strength in STRENGTHS]
    over = {name: _gap(_mean(sets, name, lever), _mean(sets, name, "floor-log")) for name in ("her2st", *simulated)}
    lost = [_gap(_mean(sets, f"{s}-strong", lever), _mean(sets, f"{s}-none", lever)) for s in SHAPES]
    strong, floor = f"strong batch effect{said}", f"default{said} − untrained floor of log values"
    return [
        (f"dlpfc joint{said}, ARI, median over seeds", statistics.median(joint) if several else None, 0.65),
        (f"dlpfc joint{said}, ARI, smallest − largest over seeds", min(joint) - max(joint) if several else None, -0.02),
        (f"her2st, ARI: {floor}", over.pop("her2st"), 0.05),
        (f"simulated tissue with the smallest gain, ARI: {floor}", _lowest(list(over.values())), 0.05),
        (
            f"{strong}, iLISI (scaled), smallest",
            _lowest([_mean(sets, f"{s}-strong", lever, "ilisi") for s in SHAPES]),
            0.8,
        ),
        (
            f"{strong}, iLISI elsewhere over that without batch effect, smallest",
            _lowest([ratio(s, "ilisi_elsewhere") for s in SHAPES]),
            0.8,
        ),
        (
            f"{strong}, iLISI over that without batch effect, smallest",
            _lowest([ratio(s, "ilisi") for s in SHAPES]),
            0.8,
        ),
        (f"{strong}, ARI over that without batch effect, most lost", _lowest(lost), -0.03),
    ]


def _mean(sets: dict[str, Any], name: str, lever: str, key: str = "ari") -> float | None:
    runs = sets.get(name, {"levers": {}})["levers"].get(lever, {"runs": []})["runs"]
    return statistics.fmean(run[key] for run in runs) if runs and key in runs[0] else None


def _lowest(values: list[float | None]) -> float | None:
    return min((v for v in values if v is not None), default=None)


def _gap(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second
