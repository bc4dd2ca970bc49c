"""Real slices laid on each other after a random turn: cortex by its layers, two planes of one section, breast."""

import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.align_data import Made, drawn_move, real_run
from benchmarks.align_fit import BASELINES
from benchmarks.align_made import Setting
from benchmarks.align_paste import TITLE, paste_pair
from benchmarks.child import call
from benchmarks.data import say

CORTEX = (("151673", "151674"), ("151675", "151676"), ("151674", "151675"))
"""Target and source; the source is turned."""
METHODS = {
    **BASELINES,
    "rigid": "stscale: rigid transform, nearest spot",
    "plan": "stscale: plan (latents, space, transport)",
    "paste": TITLE,
}
PLANES = ("embryo2_z2", "embryo2_z5")
LAYERS = ("layer1", "layer2", "layer3", "layer4")


def _fitted(
    setting: Setting, made: Made, source: str, target: str, moves: list[dict[str, Any]], folder: str
) -> tuple[list[dict[str, Any]], float]:
    given = {"run": str(made.path), "source": source, "target": target, "moves": moves}
    given |= {"settings": {}, "folder": folder, "threads": setting.threads, "refined": True}
    done = call("benchmarks.align_fit:fit", given, threads=setting.threads)
    return done.value, done.peak_rss_mib


def _plans(
    setting: Setting, made: Made, source: str, target: str, move: dict[str, Any], folder: str, *, paste: bool
) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the plan file of every method, and what they took."""
    (entry,), peak = _fitted(setting, made, source, target, [move], folder)
    given = {"run": str(made.path), "source": source, "target": target, "move": move}
    given |= {"matrix": entry["matrix"], "folder": folder}
    plans = call("benchmarks.align_fit:trivial", given, threads=1).value
    plan = Path(folder) / "plan-0.npz"
    if plan.exists():
        plans["plan"] = str(plan)
    cost = {"fit": entry, "peak_rss_mib": peak}
    if paste:
        cost["paste"] = paste_pair(setting.paste, made, source, target, move, Path(folder))
        if "plan" in cost["paste"]:
            plans["paste"] = cost["paste"].pop("plan")
    return plans, cost


def cortex(setting: Setting) -> dict[str, Any]:
    """Align the pairs of cortex for every seed of the embedding; PASTE once, it has no seed."""
    rows = []
    for seed in setting.seeds:
        words = [*setting.words, "--seed", str(seed)]
        made = real_run("dlpfc_br8100", setting.folder, setting.threads, domains=7, words=words, name=f"seed{seed}")
        for number, (target, source) in enumerate(CORTEX):
            move = drawn_move(seed, number)
            with tempfile.TemporaryDirectory(dir=setting.folder) as folder:
                first = seed == setting.seeds[0]
                plans, cost = _plans(setting, made, source, target, move, folder, paste=first)
                asked = {"run": str(made.path), "source": source, "target": target, "plans": plans, "label": "domain"}
                scores = call("benchmarks.align_score:against_labels", asked, threads=1).value
            rows.append({"pair": f"{target}-{source}", "seed": seed, "move": move, **cost, "scores": scores})
            said = ", ".join(f"{method} {score['accuracy']:.3f}" for method, score in scores.items())
            say(f"{target}-{source} seed {seed}: {said}")
    return {"title": "dlpfc_br8100", "methods": METHODS, "rows": rows}


def planes(setting: Setting) -> dict[str, Any]:
    """Turn one plane of the section three times and lay it back."""
    made = real_run("seqfish_embryo2", setting.folder, setting.threads, domains=12, words=setting.words, name="seed0")
    moves = [drawn_move(draw) for draw in setting.seeds]
    target, source = PLANES
    with tempfile.TemporaryDirectory(dir=setting.folder) as folder:
        found, peak = _fitted(setting, made, source, target, moves, folder)
        asked = {"run": str(made.path), "source": source, "target": target, "moves": moves, "folder": folder}
        judged = call("benchmarks.align_score:against_identity", {**asked, "found": found}, threads=1).value
    rows = [{"move": m, "fit": f, **j} for m, f, j in zip(moves, found, judged, strict=True)]
    for row in rows:
        say(f"planes: {row['degrees']:.3f}°, {row['rigid']:.3f} neighbour distances")
    return {"title": "seqfish_embryo2", "peak_rss_mib": peak, "rows": rows}


def breast(setting: Setting) -> dict[str, Any]:
    """Lay each layer on the one before, for every seed of the embedding, beside PASTE."""
    rows = []
    for seed in setting.seeds:
        words = [*setting.words, "--seed", str(seed)]
        made = real_run("breast_st", setting.folder, setting.threads, domains=4, words=words, name=f"seed{seed}")
        for number, (target, source) in enumerate(pairwise(LAYERS)):
            move = drawn_move(seed, number)
            with tempfile.TemporaryDirectory(dir=setting.folder) as folder:
                plans, cost = _plans(setting, made, source, target, move, folder, paste=True)
                asked = {"run": str(made.path), "files": list(made.files), "source": source, "target": target}
                scores = call("benchmarks.align_score:against_coherence", {**asked, "plans": plans}, threads=1).value
            rows.append({"pair": f"{target}-{source}", "seed": seed, "move": move, **cost, "scores": scores})
            said = ", ".join(f"{method} {score['edge_consistency']:.3f}" for method, score in scores.items())
            say(f"{target}-{source} seed {seed}, edge consistency: {said}")
    return {"title": "breast_st", "methods": METHODS, "rows": rows}
