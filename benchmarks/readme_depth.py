"""Table of spots with few counts."""

import statistics

from benchmarks.readme_align import spread
from benchmarks.tables import Results, number, table


def depth(results: Results) -> str:
    """Render domains by set and way, what a linear rule that saw the annotation finds, and how slices mix."""
    ways = results["ways"]
    rows = []
    for name, part in sorted(results["sets"].items(), key=lambda item: (item[1]["of"], -item[1]["counts"])):
        found = part["ways"]
        cells = [spread(found[way]["ari"], 3) for way in ways]
        more = [f"{statistics.median(found['smooth'][key]):.3f}" for key in ("ceiling", "ilisi")]
        rows.append([name, number(part["counts"]), *cells, *more])
    counts = sorted({len(part["seeds"]) for part in results["sets"].values()})
    said = f"Median ARI (min–max) of {' or '.join(map(str, counts))} seeds, K given:"
    heads = ["set, share of counts kept", "counts a spot", *ways.values(), "ceiling, `smooth`", "iLISI, `smooth`"]
    return f"{said}\n\n{table(heads, rows)}"
