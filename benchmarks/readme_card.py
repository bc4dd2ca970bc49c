"""Tables of the label-free card against the labels, and of the estimated number of domains."""

import statistics

from benchmarks.k import EMBEDDINGS, TITLES
from benchmarks.tables import Results, machine, table

PAIR_TITLES = {
    "learned": "learned against smoothed PCA",
    "smooth": "smoothed PCA against the same PCA not smoothed",
    "wide": "PCA smoothed over 8 rounds against over 2",
}
MEASURES = {
    "told": "told",
    "seeds": "seeds",
    "halves": "halves",
    "gain": "gain",
    "chaos": "CHAOS",
    "pas": "PAS",
    "ilisi": "iLISI",
}


def card(results: Results) -> str:
    """Render how often verdict and labels agree, and every case."""
    margin = results["margin"]
    parts = [
        f"Better by the labels: ARI of whole runs' domains (60 starts, true K) higher by more than {margin}; "
        f"{machine(results)}:"
    ]
    heads = ["pair", "cases", "agree", "says better, is", "says better, is not", "says not, is", "says not, is not"]
    rows, said = [], []
    for pair, found in results["summary"].items():
        counts = [str(n) for n in found["table"].values()]
        rows.append([PAIR_TITLES[pair], str(found["cases"]), f"{found['agree']} of {found['cases']}", *counts])
        rank = ", ".join(f"{MEASURES[m]} {v:+.2f}" for m, v in found["spearman_with_ari"].items() if v is not None)
        said.append(f"Spearman of a measure's difference with the ARI's, {PAIR_TITLES[pair]}: {rank}.")
    shown = "Trained embeddings, and others where the verdict is wrong:"
    parts += [table(heads, rows), *said, shown, _cases(results["cases"])]
    if "cost" in results:
        cost = results["cost"]
        parts.append(
            f"The card of dlpfc_br8100 takes {cost['quality']:.1f} s of one core, the rest of the run "
            f"{cost['rest']:.0f} s ({cost['share']:.0%})."
        )
    return "\n\n".join(parts)


def _cases(cases: list[Results]) -> str:
    """Return one row per set and pair, seeds together: all trained embeddings, and others where verdicts are wrong."""
    rows = []
    for name, pair in dict.fromkeys((c["set"], c["pair"]) for c in cases):
        mine = [c for c in cases if (c["set"], c["pair"]) == (name, pair)]
        if pair != "learned" and all(c["agrees"] for c in mine):
            continue
        pairs = ["; ".join(f"{c['ari'][i]:.3f}" for c in mine) for i in (0, 1)]
        measured = []
        for key in ("told", "seeds", "halves", "pas"):
            medians = [statistics.median(c["measures"][i][key] for c in mine) for i in (0, 1)]
            measured.append(" / ".join(f"{m:.2f}" if key in ("seeds", "halves") else f"{m:.3f}" for m in medians))
        verdicts = "; ".join(c["verdict"] + ("" if c["agrees"] else " (wrong)") for c in mine)
        rows.append([name, PAIR_TITLES[pair], *pairs, *measured, verdicts])
    heads = ["set", "pair", "ARI, first", "ARI, second", "told", "seeds", "halves", "PAS ↓", "verdict, each seed"]
    return table(heads, rows)


def k(results: Results) -> str:
    """Render the errors of every estimator, and the default on every set."""
    found, rows = results["summary"], []
    kinds = [kind for kind in EMBEDDINGS if kind in found]
    for name, title in TITLES.items():
        cells = [f"{found[kind]['error'][name]:.2f} ({found[kind]['bias'][name]:+.2f})" for kind in kinds]
        rows.append([title, *cells])
    sets = ", ".join(f"{EMBEDDINGS[kind]} on {found[kind]['sets']} sets" for kind in kinds)
    parts = [
        f"Mean |K̂ − K| (mean K̂ − K) over sets, K from 2 to 15 tried; {sets}; {machine(results)}:",
        table(["estimator", *(EMBEDDINGS[kind] for kind in kinds)], rows),
    ]
    for kind in kinds:
        part = found[kind]
        parts.append(
            f"The range that is told holds the true K on {part['within_range']:.0%} of the sets ({EMBEDDINGS[kind]}), "
            f"and is {part['range_width']:.1f} wide on average."
        )
    rows = []
    for name, part in results["sets"].items():
        rows.append([name, str(part["k"]), *(_estimate(part.get(kind)) for kind in kinds)])
    return "\n\n".join([*parts, table(["set", "true K", *(f"{EMBEDDINGS[kind]}: K̂ (range)" for kind in kinds)], rows)])


def _estimate(row: Results | None) -> str:
    return "" if row is None else f"{row['k']['default']} ({row['range'][0]}–{row['range'][1]})"
