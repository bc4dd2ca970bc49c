"""The page: sections in the order a biologist asks."""

from pathlib import Path

from stscale.report.charts import composition, estimate, latent_map, losses
from stscale.report.contents import Contents
from stscale.report.drawing import Panel
from stscale.report.laid import Laid
from stscale.report.maps import domain_maps
from stscale.report.markup import details, duration, facts, figure, notes, section, size, table, text
from stscale.report.overlays import alignment_panels
from stscale.report.palette import palette
from stscale.report.style import CSS
from stscale.report.summary import key_facts, remarks

STAGES = {
    "ingest": "read the slices",
    "features": "genes and principal components",
    "graph": "spatial graph",
    "train": "training",
    "embed": "embedding of every spot",
    "domains": "domains",
    "write": "output",
    "align": "alignment",
    "transfer": "labels and genes carried over",
}
ALIGNED = ("overlay", "matches", "residuals", "stack")


def panels(contents: Contents, laid: Laid | None = None) -> list[Panel]:
    """Draw the figures of a run, in the order of the page; those of an alignment where there is one."""
    drawn = (
        domain_maps(contents.spots),
        composition(contents.spots),
        estimate(contents),
        losses(contents),
        latent_map(contents),
    )
    return [panel for panel in drawn if panel is not None] + ([] if laid is None else alignment_panels(laid))


def page(contents: Contents, figures: list[Panel], laid: Laid | None = None) -> str:
    """Return the whole HTML page; it refers to nothing outside itself."""
    shown = {panel.name: figure(panel) for panel in figures}
    titles = {"domains": "Domains", "composition": "Composition", "estimate": "Number of domains"}
    titles |= {"losses": "Training", "latent": "Latent space"}
    extra = {"composition": details("Spots of each domain", _counts(contents))}
    sections = [section("summary", "Summary", facts(key_facts(contents)), notes(remarks(contents)))]
    for name, title in titles.items():
        if name in shown:
            sections.append(section(name, title, shown[name], extra.get(name, "")))
    if laid is not None:
        drawn = [shown[name] for name in ALIGNED if name in shown]
        sections.append(section("alignment", "Alignment", _pairs(laid), notes(_said(laid)), *drawn))
    sections += [
        section("stages", "Stages", _stages(contents)),
        section("inputs", "Inputs", _inputs(contents)),
        section("config", "Options", details("config.toml", f"<pre><code>{text(contents.config_text)}</code></pre>")),
        section("versions", "Versions", _versions(contents)),
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


def _counts(contents: Contents) -> str:
    spots = contents.spots
    k = len(spots.domains)
    rows = [
        [name, *(f"{n:,}" for n in row), f"{row.sum():,}"]
        for name, row in zip(spots.slices, spots.counts(), strict=True)
    ]
    head = ["Slice", *spots.domains, "left out", "all"]
    return table(head, rows, numbers=range(1, k + 3), chips=["", *palette(k), "", ""])


def _pairs(laid: Laid) -> str:
    unit = "µm" if laid.alignment.unit == "µm" else "units"
    head = [
        "Pair",
        "Turned",
        f"Shift, {unit}",
        "Scale",
        "Overlap",
        "Inliers",
        f"Residual, {unit}",
        "Matched",
        "Credible",
    ]
    rows = [
        [
            f"{p.source} on {p.target}",
            f"{p.transform.rotation_degrees:.2f}°" + (", mirrored" if p.transform.mirror else ""),
            f"{p.transform.shift[0]:,.0f}, {p.transform.shift[1]:,.0f}",
            f"{p.transform.scale:.3f}",
            f"{p.overlap:.2f}",
            f"{p.inlier_share:.2f}",
            f"{p.residual:,.1f}",
            f"{p.plan_coverage:.2f}",
            "yes" if p.credible else "no",
        ]
        for p in laid.alignment.pairs
    ]
    return table(head, rows, numbers=range(1, 8))


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
    return table(["Slice", "Size", "Hash (BLAKE2b)", "Path"], rows, numbers=(1,))


def _versions(contents: Contents) -> str:
    manifest = contents.manifest
    rows = [["stscale", manifest.get("stscale", "unknown")], ["Python", manifest.get("python", "unknown")]]
    rows += [[name, version] for name, version in manifest.get("packages", {}).items()]
    return table(["Package", "Version"], rows)
