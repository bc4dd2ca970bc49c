"""Render the result files as tables into benchmarks/RESULTS.md, between `<!-- NAME -->` and `<!-- /NAME -->`.

The top README gets what sums them up. `--check` changes nothing and exits 1 when either is not what would be rendered.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.child import REPOSITORY
from benchmarks.data import RESULTS, read_results
from benchmarks.readme_align import align
from benchmarks.readme_captures import captures
from benchmarks.readme_card import card, k
from benchmarks.readme_composition import composition
from benchmarks.readme_depth import depth
from benchmarks.readme_downstream import downstream
from benchmarks.readme_levers import levers, panels, surroundings
from benchmarks.readme_methods import methods
from benchmarks.readme_normalised import normalised
from benchmarks.readme_scale import published, scale
from benchmarks.readme_summary import summary
from benchmarks.readme_unseen import unseen
from benchmarks.tables import Results, machine, table

COLUMNS = {
    "ari": ("ARI", 3),
    "nmi": ("NMI", 3),
    "clustering_accuracy": ("CA", 3),
    "chaos": ("CHAOS ↓", 3),
    "pas": ("PAS ↓", 3),
    "ilisi": ("iLISI", 3),
    "batch_asw": ("batch ASW", 3),
    "seconds": ("seconds", 0),
    "peak_rss_mib": ("peak RSS, MiB", 0),
}


def quality(results: Results) -> str:
    """Render one table per tissue set."""
    return "\n\n".join(_tissue(tissue) for tissue in results["sets"].values())


def _tissue(tissue: Results) -> str:
    labelled = tissue.get("labelled", True)
    columns = {m: c for m, c in COLUMNS.items() if labelled or m not in ("ari", "nmi", "clustering_accuracy")}
    heads = ["method", "seeds", *(title for title, _ in columns.values())]
    rows = [
        [_named(r), str(len(r["seeds"])), *(_spread(r["summary"][m], digits) for m, (_, digits) in columns.items())]
        for r in _measured(tissue)
    ]
    for figure in tissue["published"]:
        values = [f"{figure[m]:.{digits}f}" if m in figure else "" for m, (_, digits) in columns.items()]
        rows.append([f"{figure['title']} ({figure['kind']}: {figure['source']})", "", *values])
    lines = [f"**{tissue['title']}**, K = {tissue['k']} given to every method; median (min–max) over seeds:", ""]
    lines.append(table(heads, rows))
    if labelled:
        lines += ["", "ARI of each labelled slice alone, median:", "", _slices(tissue)]
    skipped = [f"{r['title']}: {r['skipped']}" for r in tissue["rows"].values() if "skipped" in r]
    lines += ["", *(f"Skipped: {text}." for text in skipped)] if skipped else []
    return "\n".join(lines)


def _measured(tissue: Results) -> list[Results]:
    return [r for r in tissue["rows"].values() if "summary" in r]


def _named(row: Results) -> str:
    return f"{row['title']} (smoke run, no measurement)" if row["smoke"] else row["title"]


def _slices(tissue: Results) -> str:
    rows = _measured(tissue)
    names = list(dict.fromkeys(name for r in rows for name in r["summary"]["slice_ari"]))
    cells = [[_named(r), *(f"{r['summary']['slice_ari'][n]['median']:.3f}" for n in names)] for r in rows]
    return table(["method", *names], cells)


def _spread(value: dict[str, float | None], digits: int) -> str:
    median, low, high = (value[key] for key in ("median", "min", "max"))
    if median is None:
        return "–"
    if low == high:
        return f"{median:.{digits}f}"
    return f"{median:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def foundation(results: Results) -> str:
    """Render targets and stages of the simulated run."""
    size = results["settings"]
    rows = [
        [title, f"{part['measured']:.{digits}f}", f"{sign} {part['target']:g}", "yes" if part["met"] else "**no**"]
        for part, title, digits, sign in (
            (results["targets"]["seconds"], "seconds, simulate and integrate", 0, "≤"),
            (results["targets"]["peak_rss_gb"], "peak RSS, GB", 2, "≤"),
            (results["targets"]["domain_ari"], "domain ARI", 3, "≥"),
        )
    ]
    metrics = results["metrics"]
    rows.append(["domain NMI", f"{metrics['labels']['nmi']:.3f}", "", ""])
    rows.append(["iLISI (0 … 1)", f"{metrics['unsupervised']['ilisi']:.3f}", "", ""])
    stages = {"simulate": results["simulate"], **results["integrate"]["stages"]}
    parts = ", ".join(f"{name} {stage['seconds']:.1f} s" for name, stage in stages.items())
    shape = f"{size['slices']} slices × {size['spots']:,} spots × {size['genes']:,} genes".replace(",", " ")
    head = f"{shape}, seed {size['seed']}, K = {size['domains']}, {machine(results)}:"
    return f"{head}\n\n{table(['', 'measured', 'target', 'met'], rows)}\n\nStages: {parts}."


def telescope(results: Results) -> str:
    """Render both forms by size."""
    heads = ["spots", "block, s", "gram, s", "block / gram", "block, MiB", "gram, MiB"]
    heads += [f"{form} error, {what}" for what in ("value", "gradient") for form in ("block", "gram")]
    rows = []
    for entry in results["sizes"]:
        block, gram = entry["block"], entry["gram"]
        times = [f"{block['median']:.3g}", f"{gram['median']:.2g}", f"{entry['ratio']:.0f}"]
        memory = [f"{form['peak_rss_mib']:.0f}" for form in (block, gram)]
        apart = [f"{entry[f'{form}_error'][what]:.0e}" for what in ("value", "gradient") for form in ("block", "gram")]
        rows.append([f"{entry['n']:,}".replace(",", " "), *times, *memory, *apart])
    width = results["sizes"][0]["d"]
    head = f"Value and gradient, d = {width}, float32, views 1e-3 apart, median of the repeats, {machine(results)}; "
    head += "errors are relative, against the block form in float64:"
    return f"{head}\n\n{table(heads, rows)}"


SECTIONS: dict[str, Callable[[Results], str]] = {
    "quality": quality,
    "card": card,
    "k": k,
    "levers": levers,
    "captures": captures,
    "depth": depth,
    "unseen": unseen,
    "normalised": normalised,
    "surroundings": surroundings,
    "panels": panels,
    "composition": composition,
    "foundation": foundation,
    "telescope": telescope,
    "scale": scale,
    "published": published,
    "align": align,
    "methods": methods,
    "downstream": downstream,
}


DOCUMENTS = {"README.md": ("summary",), "benchmarks/RESULTS.md": tuple(SECTIONS)}
"""Which sections a document has."""


def rendered(name: str, text: str, results: Path = RESULTS) -> str:
    """Return the text of a document, one of `DOCUMENTS`, with every section rendered anew.

    Raises
    ------
    ValueError
        When a marker is missing.
    """
    for section in DOCUMENTS[name]:
        start, end = f"<!-- {section} -->", f"<!-- /{section} -->"
        if text.count(start) != 1 or text.count(end) != 1:
            raise ValueError(f"{name} needs the markers {start} and {end}, once each")
        before, rest = text.split(start)
        text = f"{before}{start}\n{_section(section, results)}\n{end}{rest.split(end)[1]}"
    return text


def _section(section: str, results: Path) -> str:
    if section == "summary":
        return summary({name: read_results(results / f"{name}.json") for name in SECTIONS})
    found = read_results(results / f"{section}.json")
    return SECTIONS[section](found) if found else f"Not measured yet: `python -m benchmarks.{section}`."


def main() -> int:
    """Render, or check."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 when a document is not up to date")
    parser.add_argument("--root", type=Path, default=REPOSITORY, help="folder that the documents are in")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    try:
        old = {name: (given.root / name).read_text(encoding="utf-8") for name in DOCUMENTS}
        new = {name: rendered(name, text, given.results) for name, text in old.items()}
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    stale = [name for name in DOCUMENTS if old[name] != new[name]]
    if given.check:
        if stale:
            print(f"{' and '.join(stale)} not up to date: python -m benchmarks.readme", file=sys.stderr)
        return int(bool(stale))
    for name in stale:
        (given.root / name).write_text(new[name], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
