"""Tables of slices that do not hold the same tissue."""

import statistics
from typing import Any

from benchmarks.readme_align import spread
from benchmarks.tables import Results, table


def composition(results: Results) -> str:
    """Render domains by what scores are around, the gains on sets as they are, and mapped slices."""
    centers = results["centers"]
    rows = []
    for name, part in results["cuts"].items():
        for kind, shown in (("smooth", "smooth"), ("trained", "default")):
            if part[kind]:
                rows.append([name, shown, f"{part['gain']:+.3f}, {part['own']:+.2f}", *_cells(part[kind], centers)])
        if "joined" in part:
            found = {"kinds": part["joined"]}
            rows.append([name, "smooth, `--align`", "", *_cells(found, centers)])
    heads = ["set", "method", "gain, of one slice", *(f"ARI, {title}" for title in centers.values())]
    heads += [f"iLISI, {title}" for title in centers.values()]
    counts = sorted({len(part["seeds"]) for part in results["cuts"].values()})
    said = f"Median (min–max) of {' or '.join(map(str, counts))} seeds, by `preprocess.center`; slices are moved where "
    said += "the gain is over 0.01, or that of one slice, the least of nine, over 0.1:"
    whole = ", ".join(f"{n} {p['gain']:+.3f} ({p['own']:+.2f})" for n, p in results["whole"].items())
    over = "; ".join(f"{name} {min(gains):+.3f} to {max(gains):+.3f}" for name, gains in results["seeds"].items())
    count = len(next(iter(results["seeds"].values())))
    parts = [said, table(heads, rows), f"Gain on the sets as they are (of one slice): {whole}."]
    parts += [f"Gain over {count} seeds of the components: {over}.", _heights(results), _mapped(results)]
    return "\n\n".join(parts)


def _cells(found: dict[str, Any], centers: dict[str, str]) -> list[str]:
    ari = [spread(found[c]["ari"], 3) if c in found else "" for c in centers]
    return ari + [f"{statistics.median(found[c]['ilisi']):.3f}" if c in found else "" for c in centers]


def _heights(results: Results) -> str:
    """Render what the height does where slices capture genes unlike each other."""
    rows = []
    for name, part in results["cuts"].items():
        if "root" not in part:
            continue
        both = (part["smooth"]["kinds"], part["root"])
        mixing = [f"{statistics.median(found['ilisi']):.3f}" for found in both]
        rows.append([name, *(spread(found["ari"], 3) for found in both), *mixing])
    heads = ["set", *(f"{what}, {gain}" for what in ("ARI", "iLISI") for gain in ("`auto` (default)", "`slice`"))]
    return f"Beside kinds, by `preprocess.gain` (`--method smooth`):\n\n{table(heads, rows)}"


def _mapped(results: Results) -> str:
    """Render what becomes of a slice that is mapped onto a run of the others."""
    rows = []
    for which, part in results["mapped"].items():
        name, _, center = which.partition("/")
        novel = [
            f"{sum(found[what] == 'novel' for found in part['verdicts'])} of {len(part['verdicts'])}"
            for what in ("itself", "genes", "programmes")
        ]
        rows.append([name, results["centers"][center], spread(part["ari"], 3), spread(part["accuracy"], 3), *novel])
    heads = ["set", "`preprocess.center`", "ARI", "accuracy", "called novel", "with genes exchanged", "with like genes"]
    return f"The last slice mapped onto a run of the others (`--method smooth`):\n\n{table(heads, rows)}"
