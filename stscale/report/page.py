"""The page: sections in the order a biologist asks."""

from pathlib import Path

from stscale.report.card import card
from stscale.report.charts import composition, estimate, losses
from stscale.report.contents import Contents
from stscale.report.drawing import Panel
from stscale.report.findings import Findings
from stscale.report.laid import Laid
from stscale.report.latent import latent_map
from stscale.report.maps import domain_maps
from stscale.report.marker_maps import marker_panel
from stscale.report.markup import details, duration, facts, figure, notes, paragraph, section, size, table, text
from stscale.report.mixing import mixing_panel
from stscale.report.overlays import alignment_panels
from stscale.report.style import CSS
from stscale.report.summary import key_facts, lead, remarks
from stscale.report.tables import counts_table, marker_lines, marker_table, mixing_table, pairs_table, reproduced

STAGES = {
    "ingest": "read the slices",
    "features": "genes and principal components",
    "graph": "spatial graph",
    "join": "slices laid on each other and joined",
    "train": "training",
    "embed": "embedding of every spot",
    "domains": "domains",
    "write": "output",
    "quality": "quality without labels",
    "align": "alignment",
    "transfer": "labels and genes carried over",
}
TITLES = {
    "domains": "Domains",
    "composition": "Composition",
    "markers": "Marker genes",
    "latent": "Latent space",
    "mixing": "Mixing of slices",
    "estimate": "Number of domains",
    "losses": "Training",
}
ALIGNED = ("overlay", "matches", "residuals", "stack")


def panels(contents: Contents, findings: Findings, laid: Laid | None = None) -> list[Panel]:
    """Draw the figures of a run, in the order of the page; those of an alignment where there is one."""
    fitted, markers, mixing = findings.fitted, findings.markers, findings.mixing
    drawn = (
        domain_maps(contents.spots),
        composition(contents.spots),
        None if fitted is None or markers is None else marker_panel(fitted, markers),
        latent_map(contents),
        None if mixing is None else mixing_panel(mixing),
        estimate(contents),
        losses(contents),
    )
    return [panel for panel in drawn if panel is not None] + ([] if laid is None else alignment_panels(laid))


def page(contents: Contents, findings: Findings, figures: list[Panel], laid: Laid | None = None) -> str:
    """Return the whole HTML page; it refers to nothing outside itself."""
    shown = {panel.name: figure(panel) for panel in figures}
    extra = {"composition": details("Spots of each domain", counts_table(contents))}
    if findings.markers is not None:
        extra["markers"] = marker_lines(findings.markers) + details("More markers", marker_table(findings.markers))
    if findings.mixing is not None:
        extra["mixing"] = details("Mixing of each slice", mixing_table(findings.mixing))
    sections = [
        section(
            "summary",
            "Summary",
            paragraph(lead(contents)),
            facts(key_facts(contents)),
            notes(remarks(contents) + findings.remarks()),
        )
    ]
    if findings.card is not None:
        sections.append(section("quality", "Quality without labels", card(findings.card)))
    for name, title in TITLES.items():
        if name in shown:
            sections.append(section(name, title, shown[name], extra.get(name, "")))
    if laid is not None:
        drawn = [shown[name] for name in ALIGNED if name in shown]
        sections.append(section("alignment", "Alignment", pairs_table(laid), notes(_said(laid)), *drawn))
    sections += [
        section("stages", "Stages", _stages(contents)),
        section("inputs", "Inputs", _inputs(contents)),
        section("config", "Options", details("config.toml", f"<pre><code>{text(contents.config_text)}</code></pre>")),
        section("reproduce", "Reproduce", reproduced(contents), _versions(contents)),
    ]
    name = text(contents.name)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name} · stscale</title>
<style>{CSS}</style>
</head>
<body>
<header>
<p>stscale: integration of spatial-transcriptomics slices</p>
<h1>{name}</h1>
</header>
<main>
{chr(10).join(sections)}
</main>
<footer>The embedding, the domains and all of the input's own columns are in integrated.zarr beside this page; the
figures are in figures/.</footer>
</body>
</html>
"""


def _said(laid: Laid) -> list[str]:
    found = laid.alignment
    return [*found.notes, *(f"{p.source} on {p.target}: {note}" for p in found.pairs for note in p.notes)]


def _stages(contents: Contents) -> str:
    stages = contents.manifest["stages"]
    order = [s for s in STAGES if s in stages] + [s for s in stages if s not in STAGES and s != "report"]
    rows = [
        [
            STAGES.get(name, name),
            duration(stages[name].get("seconds", 0.0)),
            f"{stages[name].get('peak_mb', 0.0):,.0f}",
            "from an earlier run" if name in contents.reused else "done now",
        ]
        for name in order
    ]
    return table(["Stage", "Time", "Peak memory, MiB", ""], rows, numbers=(1, 2))


def _inputs(contents: Contents) -> str:
    rows = [
        [Path(str(i["path"])).name, size(i["bytes"]), i["hash"], i["path"]] for i in contents.manifest.get("inputs", [])
    ]
    return table(["Input", "Size", "Hash (BLAKE2b)", "Path"], rows, numbers=(1,))


def _versions(contents: Contents) -> str:
    manifest = contents.manifest
    rows = [["stscale", manifest.get("stscale", "unknown")], ["Python", manifest.get("python", "unknown")]]
    rows += [[name, version] for name, version in manifest.get("packages", {}).items()]
    return table(["Package", "Version"], rows)
