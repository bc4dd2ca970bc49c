"""The run in numbers and plain sentences."""

from stscale.report.contents import Contents
from stscale.report.markup import count, duration, size

NAMED = 5
"""Slices named one by one in a sentence."""


def key_facts(contents: Contents) -> list[tuple[str, str, str]]:
    """Return (name, value, remark) of what a reader asks first."""
    spots, features, train = contents.spots, contents.stage("features"), contents.stage("train")
    out = int((spots.domain < 0).sum())
    stages = contents.manifest["stages"].values()
    found = [
        ("Slices", f"{len(spots.slices):,}", ""),
        ("Spots", f"{spots.n:,}", f"{count(out, 'spot')} left out" if out else "none left out"),
    ]
    if "genes_shared" in features:
        union = contents.option("preprocess", "genes") == "union"
        found.append(
            ("Genes", f"{features['genes_shared']:,}", "in any of the slices" if union else "shared by all slices")
        )
        every = features["genes_used"] == features["genes_shared"]
        found.append(("Genes used", f"{features['genes_used']:,}", "all of them" if every else "the most variable"))
    found.append(("Domains K", str(len(spots.domains)), origin_of_k(contents)))
    found.append(("Time", duration(sum(s.get("seconds", 0.0) for s in stages)), "all stages together"))
    peak = max((s.get("peak_mb", 0.0) for s in stages), default=0.0)
    found.append(("Peak memory", size(peak * 2**20), ""))
    if train:
        steps = count(int(train["steps"]), "step") if "steps" in train else ""
        found.append(("Device", str(train.get("device", "unknown")), steps))
    return found


def origin_of_k(contents: Contents) -> str:
    """Say where the number of domains comes from."""
    option = contents.config.get("domains", {})
    if option.get("per_slice"):
        return "each slice alone"
    if option.get("k") is not None:
        return "given"
    if option.get("method") == "leiden":
        return f"found by Leiden, resolution {option.get('resolution', 1.0):g}"
    return f"estimated from {option.get('k_min', '?')} to {option.get('k_max', '?')}"


def remarks(contents: Contents) -> list[str]:
    """Return sentences about what a reader should know before trusting the figures."""
    spots, features, out = contents.spots, contents.stage("features"), []
    left = [(name, int(n)) for name, n in zip(spots.slices, spots.counts()[:, -1], strict=True) if n]
    if left:
        total = sum(n for _, n in left)
        out.append(
            f"{count(total, 'spot')} without a count on the genes used took no part and "
            f"{'has' if total == 1 else 'have'} no domain: {_listed(left)}."
        )
    shared = [(name, int(n)) for name, n in (features.get("shared_positions") or {}).items() if n]
    if shared:
        total = sum(n for _, n in shared)
        out.append(f"{count(total, 'spot')} lie on the position of another spot: {_listed(shared)}.")
    alone = int(contents.stage("graph").get("isolated") or 0)
    if alone:
        out.append(f"{count(alone, 'spot')} {'has' if alone == 1 else 'have'} no spatial neighbour.")
    given, found = contents.option("domains", "k"), len(spots.domains)
    if given is not None and found != given and not contents.option("domains", "per_slice"):
        out.append(f"{count(int(given), 'domain')} were asked for, {found} are present.")
    if contents.option("domains", "per_slice"):
        out.append("Each slice was clustered alone: domains of different slices have different numbers.")
    if len(spots.slices) == 1:
        out.append("There is one slice only: nothing was integrated across slices.")
    for note in features.get("notes") or []:
        line = str(note)
        out.append(line[:1].upper() + line[1:] + ("" if line.endswith(".") else "."))
    return out


def _listed(entries: list[tuple[str, int]]) -> str:
    """Name the slices with the largest numbers."""
    first = sorted(entries, key=lambda e: -e[1])[:NAMED]
    text = ", ".join(f"{n:,} in {name}" for name, n in first)
    rest = len(entries) - len(first)
    return text + (f", the rest in {count(rest, 'other slice')}" if rest else "")
