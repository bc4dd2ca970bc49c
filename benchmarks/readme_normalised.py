"""Table of slices that are given normalised."""

from benchmarks.readme_align import spread
from benchmarks.tables import Results, table

WAYS = {
    "counts": "counts given",
    "brought back": "logarithms given (default)",
    "as they are": "logarithms given, `--lognormalized`",
    "corrected": "corrected counts, `--fractional`",
}


def normalised(results: Results) -> str:
    """Render how many counts come back other than they were, and domains by what was given."""
    rows = []
    for name, part in results["sets"].items():
        ways = part["back"].values()
        other, counts = sum(way["other"] for way in ways), sum(way["counts"] for way in ways)
        cells = [spread(part["ari"][way], 3) for way in WAYS]
        rows.append([name, f"{other} of {counts:,}".replace(",", " "), *cells])
    seeds = sorted({len(part["seeds"]) for part in results["sets"].values()})
    ways = list(next(iter(results["sets"].values()))["back"])
    said = (
        f"Median ARI (min–max) of {' or '.join(map(str, seeds))} seeds, K given; counts normalised in {len(ways)} ways "
    )
    said += f"({'; '.join(ways)}):"
    return f"{said}\n\n{table(['set', 'other than they were', *WAYS.values()], rows)}"
