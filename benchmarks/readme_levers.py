"""Table of levers: what a change does to the domains of every protocol set."""

import statistics

from benchmarks.tables import Results, table


def levers(results: Results) -> str:
    """Render the median ARI of each lever on each set, and its mean rank."""
    sets = results["sets"]
    keys = list(dict.fromkeys(key for part in sets.values() for key in part["levers"]))
    titles = {key: lever["title"] for part in sets.values() for key, lever in part["levers"].items()}
    rows = []
    for key in keys:
        cells = []
        for part in sets.values():
            runs = part["levers"].get(key, {"runs": []})["runs"]
            cells.append("; ".join(f"{run['ari']:.3f}" for run in runs))
        rank = results["mean_rank"].get(key)
        means = [
            statistics.fmean(r["ari"] for r in p["levers"][key]["runs"]) for p in sets.values() if key in p["levers"]
        ]
        cells += [f"{statistics.fmean(means):.3f}", f"{rank['mean_rank']:.2f}" if rank else ""]
        rows.append([titles[key], *cells])
    head = f"ARI of each seed, K given, one thread, {results['environment']['date']}:"
    return f"{head}\n\n{table(['mixture sees', *sets, 'mean', 'mean rank'], rows)}"
