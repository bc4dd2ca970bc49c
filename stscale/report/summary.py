"""The run in numbers and plain sentences."""

from stscale.report.contents import Contents
from stscale.report.markup import count, duration, size

NAMED = 5
"""Slices named one by one in a sentence."""


def key_facts(contents: Contents) -> list[tuple[str, str, str]]:
    """Return (name, value, remark) of what a reader asks first."""
    spots, features, train = contents.spots, contents.stage("features"), contents.stage("train")
    out = int((spots.domain < 0).sum())
    # the page does not count itself: drawn anew, it is the same
    stages = [s for name, s in contents.manifest["stages"].items() if name != "report"]
    found = [
        ("Slices", f"{len(spots.slices):,}", ""),
        ("Spots", f"{spots.n:,}", f"{count(out, 'spot')} left out" if out else "none left out"),
    ]
    if "genes_shared" in features:
        union = contents.option("preprocess", "genes") == "union"
        where = "in any of the slices" if union else "shared by all slices"
        found.append(("Genes", f"{features['genes_shared']:,}", where))
        found.append(("Genes used", f"{features['genes_used']:,}", genes_dropped(contents)))
    found.append(("Domains K", str(len(spots.domains)), origin_of_k(contents)))
    found.append(("Time", duration(sum(s.get("seconds", 0.0) for s in stages)), "all stages but this page"))
    peak = max((s.get("peak_mb", 0.0) for s in stages), default=0.0)
    found.append(("Peak memory", size(peak * 2**20), ""))
    if train:
        steps = count(int(train["steps"]), "step") if "steps" in train else ""
        found.append(("Device", str(train.get("device", "unknown")), steps))
    return found


def lead(contents: Contents) -> str:
    """Return the run in plain sentences."""
    spots, features = contents.spots, contents.stage("features")
    slices = count(len(spots.slices), "slice")
    genes = f" on {count(features['genes_used'], 'gene')}" if "genes_used" in features else ""
    found = count(len(spots.domains), "spatial domain")
    if len(spots.slices) == 1:
        text = f"{slices} with {count(spots.n, 'spot')} was embedded{genes} and divided into {found}."
    else:
        text = f"{slices} with {spots.n:,} spots were brought into one space{genes} and divided into {found}."
    share = spots.counts()[:, :-1].astype(float)
    if len(spots.slices) > 1 and not contents.option("domains", "per_slice"):
        everywhere = int((share > 0).all(axis=0).sum())
        some = "All" if everywhere == len(spots.domains) else f"{everywhere:,}" if everywhere else "None"
        text += f" {some} of them {'is' if everywhere == 1 or not everywhere else 'are'} found in every slice."
    return text


def genes_dropped(contents: Contents) -> str:
    """Say which genes were not used, and why."""
    features = contents.stage("features")
    used, shared, several = features["genes_used"], features["genes_shared"], len(contents.spots.slices) > 1
    known = features.get("genes_any", shared)
    reasons = []
    if shared > used:
        reasons.append(f"{shared - used:,} less variable")
    if known > shared and several:
        reasons.append(f"{known - shared:,} not in every slice")
    return f"of {known:,}; dropped: {', '.join(reasons)}" if reasons else "all of them"


def origin_of_k(contents: Contents) -> str:
    """Say where the number of domains comes from."""
    option = contents.config.get("domains", {})
    if option.get("per_slice"):
        return "each slice alone"
    if option.get("k") is not None:
        return "given"
    if option.get("method") == "leiden":
        return f"found by Leiden, resolution {option.get('resolution', 1.0):g}"
    curve = contents.stage("domains").get("curve") or {}
    sure = f"; resampled tissue gives {curve['low']} to {curve['high']}" if "low" in curve else ""
    return f"estimated from {option.get('k_min', '?')} to {option.get('k_max', '?')}{sure}"


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
    out += _of_the_join(contents) + _of_the_fit(contents)
    given, found = contents.option("domains", "k"), len(spots.domains)
    if given is not None and found != given and not contents.option("domains", "per_slice"):
        out.append(f"{count(int(given), 'domain')} were asked for, {found} are present.")
    if contents.option("domains", "per_slice"):
        out.append("Each slice was clustered alone: domains of different slices have different numbers.")
    if contents.option("run", "method") == "smooth":
        rounds = count(int(contents.option("smooth", "rounds")), "time")
        out.append(
            f"Nothing was trained: the embedding is the principal components, averaged over neighbours {rounds}."
        )
    if len(spots.slices) == 1:
        out.append("There is one slice only: nothing was integrated across slices.")
    for note in features.get("notes") or []:
        line = str(note)
        out.append(line[:1].upper() + line[1:] + ("" if line.endswith(".") else "."))
    return out


def _of_the_join(contents: Contents) -> list[str]:
    """Return what joined slices mean for what is shown, and which are not joined."""
    found = contents.stage("join")
    if not found:
        return []
    out = [
        "Slices were laid on each other before the embedding, and each spot was joined to those of the slices beside "
        "its own: the embedding averages over them, so that slices mix in it more than by themselves."
    ]
    alone = int(found.get("unjoined") or 0)
    if alone:
        out.append(
            f"{count(alone, 'spot')} {'lies' if alone == 1 else 'lie'} on no other slice and see their own alone."
        )
    return out + [f"{note[:1].upper()}{note[1:]}." for note in found.get("notes") or []]


def _of_the_fit(contents: Contents) -> list[str]:
    """Return what the plan changed, and what did not come to its end."""
    out = []
    for change in contents.manifest.get("plan", {}).get("changes") or []:
        effect = "changes the result" if change["result"] else "does not change the result"
        line = f"{change['option']} was lowered from {change['before']} to {change['after']} to fit the memory"
        out.append(f"{line} (this {effect}).")
    fit = contents.stage("domains")
    if fit.get("converged") is False:
        out.append("The mixture of the domains had not converged when its iterations ran out.")
    curve = fit.get("curve")
    if isinstance(curve, dict) and curve.get("rule") == "knee":
        out.append(
            f"The number of domains is uncertain: the criterion still fell at the largest K tried ({max(curve['k'])}), "
            f"so the knee of its curve, {curve['chosen']}, was taken."
        )
    return out


def _listed(entries: list[tuple[str, int]]) -> str:
    """Name the slices with the largest numbers."""
    first = sorted(entries, key=lambda e: -e[1])[:NAMED]
    text = ", ".join(f"{n:,} in {name}" for name, n in first)
    rest = len(entries) - len(first)
    return text + (f", the rest in {count(rest, 'other slice')}" if rest else "")
