"""The page: sections in the order a biologist asks."""

from pathlib import Path

from stscale.report.charts import composition, estimate, latent_map, losses
from stscale.report.contents import Contents
from stscale.report.drawing import Panel
from stscale.report.maps import domain_maps
from stscale.report.markup import details, duration, facts, figure, notes, section, size, table, text
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
}


def panels(contents: Contents) -> list[Panel]:
    """Draw the figures of a run, in the order of the page."""
    drawn = (
        domain_maps(contents.spots),
        composition(contents.spots),
        estimate(contents),
        losses(contents),
        latent_map(contents),
    )
    return [panel for panel in drawn if panel is not None]


def page(contents: Contents, figures: list[Panel]) -> str:
    """Return the whole HTML page; it refers to nothing outside itself."""
    shown = {panel.name: figure(panel) for panel in figures}
    titles = {"domains": "Domains", "composition": "Composition", "estimate": "Number of domains"}
    titles |= {"losses": "Training", "latent": "Latent space"}
    extra = {"composition": details("Spots of each domain", _counts(contents))}
    sections = [section("summary", "Summary", facts(key_facts(contents)), notes(remarks(contents)))]
    for name, title in titles.items():
        if name in shown:
            sections.append(section(name, title, shown[name], extra.get(name, "")))
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
