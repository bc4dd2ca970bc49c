"""Tables of the three methods: single and joint slices, ablations, cost."""

import statistics
from typing import Any

from benchmarks.methods import FLOOR, PUBLISHED, TITLES
from benchmarks.readme_align import spread
from benchmarks.tables import Results, machine, number, table, targets

GB_PER_MIB = 2**20 / 1e9
PARTS = {
    "cortex": "dlpfc_br8100, each slice alone, K = 7",
    "alone": "The same before: components of log values, domains from latents alone, a mixture without moves",
    "joint": "dlpfc_br8100, four slices jointly, K = 7",
    "sections": "her2st, labelled sections alone, K = 6",
    "ablations": "Ablations on two cortex slices, domains from latents alone, seed 0",
}


def methods(results: Results) -> str:
    """Render what was measured, targets first."""
    parts = [f"Label-free, last step, K given; {machine(results)}:", targets(results["targets"])]
    for name, title in PARTS.items():
        if results.get(name):
            parts.append(f"{title}: median ARI (least–largest) over seeds, and the *oracle* in brackets:")
            parts.append(_cases(results[name], bounds=name in ("cortex", "alone")))
    if results.get("cost"):
        parts += ["Ten simulated slices:", _cost(results["cost"])]
    return "\n\n".join(parts)


def _cases(found: Results, *, bounds: bool) -> str:
    names = list(dict.fromkeys(name for entry in found.values() for name in entry["cases"]))
    rows = []
    for entry in found.values():
        cells = [_cell(entry["cases"].get(name, [])) for name in names]
        every = [row for rows in entry["cases"].values() for row in rows]
        cells.append(f"{statistics.mean(row['ari'] for row in every):.3f}")
        rows.append([entry["title"], *cells, spread((row["seconds"] for row in every), 0)])
    if bounds:
        for title, values in (
            ("untrained floor, tied mixture", FLOOR),
            ("Spatial-MGCN, published, best epoch by labels", PUBLISHED),
        ):
            mean = statistics.mean(values.values())
            rows.append([title, *(f"{values[n]:.3f}" for n in names), f"{mean:.3f}", ""])
    return table(["method", *names, "mean", "seconds"], rows)


def _cell(rows: list[dict[str, Any]]) -> str:
    said = spread((row["ari"] for row in rows), 3)
    best = [row["oracle"]["ari"] for row in rows if row.get("oracle")]
    return f"{said} [{statistics.median(best):.3f}]" if best else said


def _cost(found: Results) -> str:
    sizes = sorted({int(n) for rows in found.values() for n in rows})
    heads = ["method", *(f"{number(n)} spots: {what}" for n in sizes for what in ("seconds", "peak RSS, GB", "ARI"))]
    rows = []
    for method, by_size in found.items():
        cells = []
        for n in sizes:
            row = by_size.get(str(n))
            if row is None:
                cells += [""] * 3
                continue
            memory = row["peak_rss_mib"] * GB_PER_MIB
            cells += [number(row["seconds"]), f"{memory:.2f}", f"{row['ari']:.3f}"]
        rows.append([TITLES[method], *cells])
    return table(heads, rows)
