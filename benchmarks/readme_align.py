"""Tables of alignment: targets, simulated slices, sizes, cortex, planes, breast, PASTE."""

import statistics
from collections.abc import Callable, Iterable

from benchmarks.align import AFFINE_BOUND, GB_PER_MIB, RIGID_BOUND
from benchmarks.tables import Results, machine, number, table


def align(results: Results) -> str:
    """Render what was measured, targets first."""
    sections: dict[str, Callable[[Results], str]] = {
        "targets": _targets,
        "simulated": _simulated,
        "sizes": lambda sizes: _sizes(sizes, results.get("paste", {})),
        "cortex": _cortex,
        "planes": _planes,
        "breast": _breast,
    }
    parts = [f"Embeddings of `stscale integrate` with its defaults, {machine(results)}:"]
    parts += [render(results[name]) for name, render in sections.items() if results.get(name)]
    return "\n\n".join(parts)


def _targets(found: Results) -> str:
    rows = []
    for title, part in found.items():
        measured = "–" if part["measured"] is None else f"{part['measured']:.3g}"
        wanted = f"{'≥' if part['at_least'] else '≤'} {part['target']:g}"
        rows.append([title, measured, wanted, "yes" if part["met"] else "**no**"])
    return table(["target", "measured", "wanted", "met"], rows)


def spread(values: Iterable[float | None], digits: int) -> str:
    """Return median (least–largest); a dash where nothing was measured."""
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    middle, low, high = statistics.median(known), min(known), max(known)
    if low == high:
        return f"{middle:.{digits}f}"
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def _simulated(cases: Results) -> str:
    heads = ["simulated pair", "runs", "degrees", "shift, pitches", "after warp", "after refinement"]
    heads += ["true overlap", "coverage", "overlap estimated", "best target within a pitch", "seconds"]
    rows = []
    for case in cases.values():
        found, fits = case["rows"], [row["fit"] for row in case["rows"]]
        if any(row["fit"]["mirror"] for row in found):
            rows.append(
                [case["title"], str(len(found)), f"reported in {sum(f['mirror'] for f in fits)}", *[""] * 7, ""]
            )
            continue
        cells = [spread((row["degrees"] for row in found), 2), spread((row["rigid"] for row in found), 2)]
        cells += [spread((row.get(stage) for row in found), 2) for stage in ("warped", "refined")]
        cells += [spread((row["overlap"] for row in found), 2), spread((fit["coverage"][0] for fit in fits), 2)]
        cells += [spread((fit.get("overlap") for fit in fits), 2)]
        cells += [spread((row.get("within_pitch") for row in found), 2)]
        cells.append(spread((fit["seconds"] + fit.get("refine_seconds", 0.0) for fit in fits), 1))
        rows.append([case["title"], str(len(found)), *cells])
    first = next(iter(cases.values()))
    turns = sorted({row["angle"] for case in cases.values() for row in case["rows"]})
    said = ", ".join(f"{angle:g}" for angle in turns)
    head = f"Simulated slices of {number(first['spots'])} spots, turned by some of {said}°, median (least–largest):"
    return f"{head}\n\n{table(heads, rows)}"


def _sizes(sizes: Results, paste: Results) -> str:
    heads = ["spots", "integrate, s", "transform, s", "plan, s", "align in all, s", "peak RSS, GB", "degrees"]
    heads += ["shift, pitches", "PASTE, s", "PASTE peak RSS, GB"]
    rows = []
    for name in sorted(set(sizes) | set(paste), key=int):
        row, other = sizes.get(name), paste.get(name)
        cells = [""] * 7
        if row:
            times = [row["integrate"]["seconds"], row["align_seconds"], row["refine_seconds"], row["seconds"]]
            cells = [number(value, 1) for value in times]
            cells += [number(row["peak_rss_mib"] * GB_PER_MIB, 2), number(row["degrees"], 3), number(row["rigid"], 2)]
        rows.append([f"2 × {number(int(name))}", *cells, *_paste(other)])
    return table(heads, rows)


def _paste(row: Results | None) -> list[str]:
    if row is None:
        return ["", ""]
    if "seconds" in row:
        return [number(row["seconds"], 1), number(row["peak_rss_mib"] * GB_PER_MIB, 2)]
    if "stopped_after" in row:
        return [f"stopped after {number(row['stopped_after'])}", ""]
    return ["did not fit", row["did_not_fit"]] if "did_not_fit" in row else [row["skipped"], ""]


def _cortex(found: Results) -> str:
    pairs = list(dict.fromkeys(row["pair"] for row in found["rows"]))
    rows = []
    for method, title in found["methods"].items():
        cells = [title]
        for pair in pairs:
            scores = [r["scores"][method] for r in found["rows"] if r["pair"] == pair and method in r["scores"]]
            said = " / ".join(spread((s[name] for s in scores), 3) for name in ("accuracy", "coverage", "ltari"))
            cells.append(said if scores else "–")
        rows.append(cells)
    rows.append(["bound: best rigid transform found with the labels", *(f"{RIGID_BOUND[pair]:.3f}" for pair in pairs)])
    rows.append(["bound: best affine transform found with the labels", *(f"{AFFINE_BOUND[p]:.3f}" for p in pairs)])
    seeds = len({row["seed"] for row in found["rows"]})
    head = f"**{found['title']}**, the second slice turned at random; accuracy / coverage / LTARI of labelled spots, "
    head += f"median (least–largest) of {seeds} embeddings and turns"
    costs = [row["paste"] for row in found["rows"] if "seconds" in row.get("paste", {})]
    if costs:
        seconds = spread((cost["seconds"] for cost in costs), 1)
        head += f"; PASTE took {seconds} s and {spread((c['peak_rss_mib'] * GB_PER_MIB for c in costs), 1)} GB"
    own = [row["fit"]["seconds"] + row["fit"].get("refine_seconds", 0.0) for row in found["rows"]]
    return f"{head}; ours {spread(own, 1)} s:\n\n{table(['method', *pairs], rows)}"


def _planes(found: Results) -> str:
    rows = found["rows"]
    cells = [spread((row["degrees"] for row in rows), 3)]
    cells += [spread((row.get(name) for row in rows), 3) for name in ("rigid", "middle")]
    heads = ["degrees", "root mean square shift", "shift of the middle"]
    head = f"**{found['title']}**, two planes of one section, one of them turned at random ({len(rows)} draws); shifts "
    return f"{head}in median distances of neighbouring cells:\n\n{table(heads, [cells])}"


def _breast(found: Results) -> str:
    names = {"edge_consistency": 3, "agreement": 3, "coverage": 3, "sources": 2}
    rows = []
    for method, title in {**found["methods"], "own": "the target's own clusters"}.items():
        scores = [row["scores"][method] for row in found["rows"] if method in row["scores"]]
        if scores:
            rows.append([title, *(spread((s.get(name) for s in scores), digits) for name, digits in names.items())])
    heads = ["method", "edge consistency", "mass between equal clusters", "coverage", "distinct sources per target"]
    head = f"**{found['title']}**, each layer on the one before; clusters of expression alone (k-means, K = 3 … 6), "
    return f"{head}carried over by the plan:\n\n{table(heads, rows)}"
