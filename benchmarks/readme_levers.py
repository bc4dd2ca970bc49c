"""Tables of levers: what a change does to the domains of every protocol set, and how strong batch effects mix."""

import statistics
from typing import Any

from benchmarks.tables import Results, table, targets


def levers(results: Results) -> str:
    """Render the mean ARI of each lever on each set with its mean rank, the mixing of slices, and the targets."""
    sets = results["sets"]
    found = list(dict.fromkeys(key for part in sets.values() for key in part["levers"]))
    across = [
        key for key in found if any("graph" in p["levers"].get(key, {}).get("changes", {}) for p in sets.values())
    ]
    keys = [key for key in found if key not in across and all(key in part["levers"] for part in sets.values())]
    titles = {key: lever["title"] for part in sets.values() for key, lever in part["levers"].items()}
    rows = []
    for name, part in sets.items():
        seeds = max(len(lever["runs"]) for lever in part["levers"].values())
        rows.append([name, str(seeds), *(_mean(part, key, "ari") for key in keys)])
    rank = results["mean_rank"]
    ranks = [f"{rank[key]['mean_rank']:.2f}" if key in rank else "" for key in keys]
    rows.append(["**mean rank**", "", *ranks])
    named = "\n".join(f"- {key}: {titles[key]}" for key in keys)
    parts = [f"ARI, mean over seeds, K given, one thread, {results['environment']['date']}; columns:\n\n{named}"]
    parts.append(table(["set", "seeds", *keys], rows))
    if across:
        parts.append(_across(sets, across))
    some = [key for key in found if key not in (*keys, *across)]
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


def _mean(part: dict[str, Any], lever: str, key: str) -> str:
    values = [run[key] for run in part["levers"].get(lever, {"runs": []})["runs"] if key in run]
    return f"{statistics.fmean(values):.3f}" if values else ""


def _some(sets: dict[str, Any], keys: list[str]) -> str:
    """Render the levers that were measured on some of the sets, a row each, beside learned latents on these."""
    names = [name for name, part in sets.items() if all(key in part["levers"] for key in keys)]
    shown = [key for key in ("default", "learned") if all(key in sets[name]["levers"] for name in names)] + keys
    rows = []
    for key in shown:
        title = next(part["levers"][key]["title"] for part in sets.values() if key in part["levers"])
        cells = [f"{_mean(sets[n], key, 'ari')} / {_mean(sets[n], key, 'boundary_accuracy')}" for n in names]
        rows.append([title, *cells])
    return "Parts of it, on some of the sets, ARI / boundary CA:\n\n" + table(["", *names], rows)


def _across(sets: dict[str, Any], keys: list[str]) -> str:
    """Render the levers that join slices, a column each, beside the same embeddings without."""
    shown = ["default", "floor-spatial", *keys]
    rows = []
    for name, part in sets.items():
        if not any(key in part["levers"] for key in keys):
            continue
        edges = [_mean(part, key, "boundary_accuracy") for key in ("default", keys[0])]
        mixing = [_mean(part, key, "ilisi") for key in ("default", keys[0])]
        rows.append([name, *(_mean(part, key, "ari") for key in shown), *edges, *mixing])
    heads = [*shown, *(f"{measure}, {key}" for measure in ("boundary CA", "iLISI") for key in ("default", keys[0]))]
    titles = {key: part["levers"][key]["title"] for key in keys for part in sets.values() if key in part["levers"]}
    named = "\n".join(f"- {key}: {title}" for key, title in titles.items())
    said = "Slices laid on each other and joined before the embedding, ARI on the sets of several slices:"
    return f"{said}\n\n{named}\n\n{table(['set', *heads], rows)}"
