"""Tables of levers: what a change does to the domains of every protocol set, and how strong batch effects mix."""

import statistics
from typing import Any

from benchmarks.lever_scores import NARROW, REFERENCE
from benchmarks.levers import whole
from benchmarks.tables import Results, table, targets
from benchmarks.tissues import SHAPES

KNOWN = "floor-true"
UNTRAINED = "floor-narrow"
CANDIDATES = (
    {"poisson": "root", "floor-poisson": "floor-root"},
    {"scale-0.3": "root", "learned-scale-0.3": "learned-root"},
)
"""Options that a slice alone does not see, and what each is compared with; a table for each."""


def levers(results: Results) -> str:
    """Render the mean ARI of each lever on each set with its mean rank, the mixing of slices, and the targets."""
    sets = results["sets"]
    found = list(dict.fromkeys(key for part in sets.values() for key in part["levers"]))
    across = [
        key for key in found if any("graph" in p["levers"].get(key, {}).get("changes", {}) for p in sets.values())
    ]
    everywhere = [key for key in found if key not in across and all(key in part["levers"] for part in sets.values())]
    keys = [key for key in everywhere if all(whole(part, key) for part in sets.values())]
    fewer = [key for key in everywhere if key not in keys]
    parts = [
        f"ARI, mean over seeds, K given, one thread, {results['environment']['date']}; columns:",
        _named(sets, keys),
        _table(sets, keys, results["mean_rank"]),
    ]
    if fewer:
        base = _compared(sets)
        parts += [f"With fewer seeds, and {base} with the same:", _named(sets, fewer)]
        parts.append(_table(sets, [base, *fewer], {}))
    if across:
        parts.append(_across(sets, across))
    if KNOWN in found:
        parts.append(_known(sets))
    elsewhere = [key for kind in CANDIDATES for pair in kind.items() for key in pair]
    parts += [_candidates(sets, kind) for kind in CANDIDATES if {*kind, *kind.values()} <= set(found)]
    some = [key for key in found if key not in (*everywhere, *across, *elsewhere, KNOWN)]
    if some:
        parts.append(_some(sets, some))
    mixing = [
        [name, *(_mean(part, "default", key) for key in ("boundary_accuracy", "ilisi", "ilisi_elsewhere", "ceiling"))]
        for name, part in sets.items()
        if "ilisi" in part["levers"]["default"]["runs"][0]
    ]
    if mixing:
        parts.append(
            "Of the default; *elsewhere* leaves out neighbours that are close in the tissue too, the *ceiling* is "
            "the ARI of a linear discriminant that was shown the annotation of the other slices:"
        )
        parts.append(table(["set", "boundary CA", "iLISI", "iLISI elsewhere", "ceiling"], mixing))
    if results.get("targets"):
        parts.append(targets(results["targets"]))
    return "\n\n".join(parts)


def _compared(sets: dict[str, Any]) -> str:
    """Return what changes are compared with: they are seen without wider surroundings, where that was measured."""
    return NARROW if all(NARROW in part["levers"] for part in sets.values()) else REFERENCE


def _named(sets: dict[str, Any], keys: list[str]) -> str:
    titles = {key: lever["title"] for part in sets.values() for key, lever in part["levers"].items()}
    return "\n".join(f"- {key}: {titles[key]}" for key in keys)


def _table(sets: dict[str, Any], keys: list[str], rank: dict[str, Any]) -> str:
    """Render a row per set, over the seeds that all columns have."""
    rows = []
    for name, part in sets.items():
        seeds = _common(part, keys)
        rows.append([name, str(len(seeds)), *(_mean(part, key, "ari", seeds) for key in keys)])
    values = [[_value(part, key, "ari", _common(part, keys)) for part in sets.values()] for key in keys]
    rows.append(["**mean**", "", *(f"{statistics.fmean(column):.3f}" for column in values)])
    if rank:
        rows.append(["**mean rank**", "", *(f"{rank[key]['mean_rank']:.2f}" if key in rank else "" for key in keys)])
    return table(["set", "seeds", *keys], rows)


def _common(part: dict[str, Any], keys: list[str]) -> set[int]:
    """Seeds that all of these levers have, of those measured on a set."""
    held = [{run["seed"] for run in part["levers"][key]["runs"]} for key in keys if key in part["levers"]]
    return set.intersection(*held) if held else set()


def _value(part: dict[str, Any], lever: str, key: str, seeds: set[int]) -> float:
    return statistics.fmean(run[key] for run in part["levers"][lever]["runs"] if run["seed"] in seeds)


def _mean(part: dict[str, Any], lever: str, key: str, seeds: set[int] | None = None) -> str:
    """Write the mean over seeds (None: all); nothing where it was not measured."""
    runs = part["levers"].get(lever, {"runs": []})["runs"]
    values = [run[key] for run in runs if key in run and (seeds is None or run["seed"] in seeds)]
    return f"{statistics.fmean(values):.3f}" if values else ""


def _some(sets: dict[str, Any], keys: list[str]) -> str:
    """Render the levers that were measured on some of the sets, a row each, beside learned latents on these."""
    names = [name for name, part in sets.items() if all(key in part["levers"] for key in keys)]
    shown = [key for key in (_compared(sets), "learned") if all(key in sets[name]["levers"] for name in names)] + keys
    seeds = {name: _common(sets[name], shown) for name in names}
    rows = []
    for key in shown:
        title = next(part["levers"][key]["title"] for part in sets.values() if key in part["levers"])
        cells = []
        for name in names:
            pair = (_mean(sets[name], key, measure, seeds[name]) for measure in ("ari", "boundary_accuracy"))
            cells.append(" / ".join(pair))
        rows.append([title, *cells])
    return "Parts of it, on some of the sets, ARI / boundary CA:\n\n" + table(["", *names], rows)


def _across(sets: dict[str, Any], keys: list[str]) -> str:
    """Render the levers that join slices, a column each, beside the same embeddings without."""
    shown = ["default", "floor-spatial", *keys]
    rows = []
    for name, part in sets.items():
        if not any(key in part["levers"] for key in keys):
            continue
        seeds = _common(part, shown)
        edges = [_mean(part, key, "boundary_accuracy", seeds) for key in ("default", keys[0])]
        mixing = [_mean(part, key, "ilisi", seeds) for key in ("default", keys[0])]
        rows.append([name, *(_mean(part, key, "ari", seeds) for key in shown), *edges, *mixing])
    heads = [*shown, *(f"{measure}, {key}" for measure in ("boundary CA", "iLISI") for key in ("default", keys[0]))]
    named = _named(sets, keys)
    said = "Slices laid on each other and joined before the embedding, ARI on the sets of several slices:"
    return f"{said}\n\n{named}\n\n{table(['set', *heads], rows)}"


def _candidates(sets: dict[str, Any], compared: dict[str, str]) -> str:
    """Render options of several slices, each after what it is compared with, a row per kind of set."""
    shown = [shown for key, base in compared.items() for shown in (base, key)]
    groups: dict[str, list[str]] = {}
    for name, part in sets.items():
        if all(key in part["levers"] for key in shown):
            shape, _, strength = name.partition("-")
            groups.setdefault(f"simulated, {strength}" if shape in SHAPES else name, []).append(name)
    rows = []
    for group, members in groups.items():
        seeds = {name: _common(sets[name], shown) for name in members}
        cells = [group if len(members) == 1 else f"{group} ({len(members)})"]
        for key in shown:
            means = [
                statistics.fmean(_value(sets[name], key, measure, seeds[name]) for name in members)
                for measure in ("ari", "boundary_accuracy", "ilisi")
            ]
            cells.append(" / ".join(f"{mean:.3f}" for mean in means))
        rows.append(cells)
    seen = sorted({len(_common(sets[name], shown)) for members in groups.values() for name in members})
    counted = f"{seen[0]}" if len(seen) == 1 else f"{seen[0]} to {seen[-1]}"
    said = f"An option of several slices, ARI / boundary CA / iLISI, mean over sets and {counted} seeds:"
    return f"{said}\n\n{_named(sets, shown)}\n\n{table(['sets', *shown], rows)}"


def _known(sets: dict[str, Any]) -> str:
    """Render what strong batch effects cost smoothed components, and what they cost when they are known."""
    rows = []
    for name, part in sets.items():
        shape, _, strength = name.partition("-")
        if strength != "strong" or KNOWN not in part["levers"]:
            continue
        seeds = _common(part, [UNTRAINED, KNOWN])
        without = _mean(sets.get(f"{shape}-none", {"levers": {}}), UNTRAINED, "ari", seeds)
        rows.append([shape, without, *(_mean(part, key, "ari", seeds) for key in (UNTRAINED, KNOWN))])
    said = (
        "What strong batch effects cost smoothed components, measured by what slices capture and known from the "
        "simulation (the counts of genes that a slice hardly captures are gone in both):"
    )
    return said + "\n\n" + table(["tissue", "no batch effect", "strong", "strong, effects known"], rows)


def surroundings(results: Results) -> str:
    """Render the ARI of smoothed components by rounds of averaging, and with what a run puts beside two of them."""
    rows, ways = [], list(max((part["ari"] for part in results["sets"].values()), key=len))
    for name, part in results["sets"].items():
        wider, ari = part["wider"], part["ari"]
        beside = f"{wider['rounds']} rounds at {wider['weight']:.2f}" if wider else ""
        cells = [f"{statistics.fmean(ari[way]):.3f}" if way in ari else "" for way in ways]
        rows.append([name, f"{part['gain']:.1%}", beside, *cells])
    rounds = [f"ARI, rounds: {way}" for way in ways if way != "run"]
    heads = ["set", "error, 2 rounds above the least", "beside", *rounds, "ARI of a run"]
    return table(heads, rows)


def panels(results: Results) -> str:
    """Render what is found where slices lack genes, by way of dealing with it."""
    rows = []
    for name, part in results["sets"].items():
        for way, found in part["ways"].items():
            means = [f"{statistics.fmean(found[key]):.3f}" for key in ("ari", "ilisi_elsewhere")]
            rows.append([name, results["ways"][way], str(found["genes"]), *means])
    return table(["set", "", "genes", "ARI", "iLISI elsewhere"], rows)
