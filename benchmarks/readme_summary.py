"""The tables of the top README: domains, sizes, and every target of every benchmark that is missed."""

import statistics
from collections.abc import Callable, Sequence

from benchmarks.foundation import GB_PER_MIB
from benchmarks.tables import Results, number, table, targets
from benchmarks.tissues import SHAPES, STRENGTHS

SETS: dict[str, Sequence[str]] = {
    "cortex, four slices together": ["dlpfc"],
    "cortex, each of the four alone": [f"dlpfc-{name}" for name in ("151673", "151674", "151675", "151676")],
    "breast cancer, sections of four patients": ["her2st"],
    **{f"simulated, batch effect {strength}": [f"{shape}-{strength}" for shape in SHAPES] for strength in STRENGTHS},
}
COLUMNS = {"default": "stscale, default", "floor-spatial": "`--method smooth`", "floor-log": "floor"}
SIZES = ("10000", "100000", "1000000")
TARGETS = {
    "foundation": "100 000 spots",
    "levers": "domains",
    "scale": "scale",
    "published": "against the published terms",
    "align": "alignment",
    "methods": "three methods",
    "downstream": "with a trained model",
}
"""Files with targets, and what they are about."""


def summary(results: dict[str, Results]) -> str:
    """Render what was measured, by the file it is in; a part whose file is not there is left out.

    Parameters
    ----------
    results
        The result files by name.
    """
    parts: dict[str, Callable[[Results], str]] = {
        "levers": _domains,
        "quality": _published,
        "scale": _sizes,
        "published": _terms,
    }
    shown = [render(results[name]) for name, render in parts.items() if results.get(name)]
    return "\n\n".join([*shown, _missed(results)])


def _domains(levers: Results) -> str:
    """Render mean and range of the sets' mean ARI by seed."""
    rows = []
    for title, names in SETS.items():
        parts = [levers["sets"][name]["levers"] for name in names if name in levers["sets"]]
        if parts:
            rows.append([title, str(len(parts)), *(_spread(parts, key) for key in COLUMNS)])
    return table(["ARI of the domains", "sets", *COLUMNS.values()], rows)


def _spread(parts: list[Results], key: str) -> str:
    """Median over seeds of the mean over sets, with the smallest and the largest."""
    seeds = [{run["seed"]: run["ari"] for run in part[key]["runs"]} for part in parts]
    values = [statistics.fmean(runs[seed] for runs in seeds) for seed in seeds[0] if all(seed in r for r in seeds)]
    return f"{statistics.median(values):.3f} ({min(values):.3f}–{max(values):.3f})"


def _published(quality: Results) -> str:
    found = quality["sets"]["dlpfc"]["published"]
    said = ", ".join(f"{f['title']} {f['ari']:.3f}" for f in found if f["kind"] == "published")
    return f"Published for the four cortex slices together: {said}."


def _sizes(scale: Results) -> str:
    rows = []
    for size in SIZES:
        row = scale["rows"].get(size)
        if row:
            run = row["integrate"]
            rows.append([number(int(size)), number(run["seconds"]), f"{run['peak_rss_mib'] * GB_PER_MIB:.1f}"])
    threads = scale["environment"]["threads"]
    return table([f"spots, `stscale integrate` on {threads} threads", "seconds", "peak RSS, GB"], rows)


def _terms(published: Results) -> str:
    last, limit = published["sizes"][-1], published["settings"]["limit_gb"]
    return (
        "The same network with its terms as published, every pair of spots in one matrix, takes "
        f"{last['time_ratio']:.0f} "
        f"times as long and {last['memory_ratio']:.0f} times the memory at {number(last['n'])} spots; more were not "
        f"tried, under a limit of {limit:.0f} GB."
    )


def _missed(results: dict[str, Results]) -> str:
    every = {
        f"{about}: {title}": part
        for name, about in TARGETS.items()
        for title, part in (results.get(name) or {}).get("targets", {}).items()
    }
    missed = {title: part for title, part in every.items() if not part["met"]}
    head = f"{len(every) - len(missed)} of {len(every)} targets are met"
    return f"{head}; these are not:\n\n{targets(missed)}" if missed else f"{head}."
