"""Table of cortex that no choice was made on."""

from benchmarks.readme_align import spread
from benchmarks.tables import Results, number, table

WAYS = {"floor": "floor", "smooth": "`--method smooth`", "default": "default"}


def unseen(results: Results) -> str:
    """Render domains of the slices together and each alone, by way."""
    rows = []
    for name, part in results["sets"].items():
        found = part["ways"]
        top = found["smooth"]["ceiling"]
        which = name.partition("-")[2] or "four together"
        shape = [number(part["spots"]), number(part["genes"]), number(part["counts"])]
        rows.append(
            [which, *shape, *(spread(found[way]["ari"], 3) for way in WAYS), "–" if top is None else f"{top:.3f}"]
        )
    seeds = sorted({len(part["seeds"]) for part in results["sets"].values()})
    said = f"Median ARI (min–max) of {' or '.join(map(str, seeds))} seeds, K = 7 given:"
    heads = ["slices", "spots", "genes used", "counts a spot", *WAYS.values(), "ceiling, `smooth`"]
    return f"{said}\n\n{table(heads, rows)}"
