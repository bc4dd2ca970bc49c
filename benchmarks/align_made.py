"""Simulated slices laid on each other: every angle, partial overlap, warp, mirror images, sizes."""

import statistics
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.align_data import drawn_move, read_truth, simulated_run
from benchmarks.align_paste import Paste, paste_pair
from benchmarks.child import call
from benchmarks.data import say

ANGLES = (0.0, 15.0, 45.0, 90.0, 135.0, 180.0)
NAMES = ["slice-00", "slice-01"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all parts share.

    Attributes
    ----------
    folder
        Where runs are kept.
    threads
        Of everything.
    seeds
        Of tissue and counts, or of the embedding.
    genes
        Simulated genes.
    words
        Further words of `stscale integrate`.
    paste
        The external baseline.
    angles
        Of simulated slices, degrees.
    smoke
        Only show that it runs.
    """

    folder: Path
    threads: int
    seeds: tuple[int, ...]
    genes: int
    words: tuple[str, ...]
    paste: Paste
    angles: tuple[float, ...]
    smoke: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A kind of simulated pair.

    Attributes
    ----------
    title
        For the table.
    simulate
        Options of [simulate].
    align
        Settings of [align].
    mirror
        The source is handed over as a mirror image.
    scale
        Its lengths are multiplied.
    """

    title: str
    simulate: dict[str, Any]
    align: dict[str, Any]
    mirror: bool = False
    scale: float = 1.0


CASES = {
    "full": Case(title="full overlap", simulate={"overlap": 1.0}, align={}),
    "70": Case(title="70 % overlap", simulate={"overlap": 0.7}, align={}),
    "40": Case(title="40 % overlap", simulate={"overlap": 0.4}, align={}),
    "scale": Case(
        title="full overlap, source 1.15 × as large, similarity",
        simulate={"overlap": 1.0},
        align={"kind": "similarity"},
        scale=1.15,
    ),
    "warp": Case(
        title="full overlap, both slices warped by up to 2 %",
        simulate={"overlap": 1.0, "warp": 0.02},
        align={"warp": True},
    ),
    "mirror": Case(title="full overlap, source a mirror image", simulate={"overlap": 1.0}, align={}, mirror=True),
}


def simulated(setting: Setting, name: str, spots: int) -> dict[str, Any]:
    """Align slice 1 on slice 0 after turning it by every angle, for every seed."""
    case = CASES[name]
    rows = []
    for seed in setting.seeds:
        spec = {"spots": spots, "genes": setting.genes, "seed": seed, **case.simulate}
        made = simulated_run(spec, setting.folder, setting.threads, list(setting.words))
        angles = setting.angles[:2] if setting.smoke else setting.angles
        # the slices lie turned by a random angle on their slides already: this takes all of it away first
        truth = read_truth(made)
        turned = [truth["transforms"][i]["rotation_degrees"] for i in (0, 1)]
        moves = [
            {**drawn_move(seed, number), "degrees": angle + turned[0] - turned[1], "mirror": case.mirror}
            for number, angle in enumerate(angles)
        ]
        moves = [{**move, "scale": case.scale} for move in moves]
        with tempfile.TemporaryDirectory(dir=setting.folder) as folder:
            given = {"run": str(made.path), "source": NAMES[1], "target": NAMES[0], "moves": moves}
            given |= {"settings": case.align, "folder": folder, "threads": setting.threads, "refined": True}
            done = call("benchmarks.align_fit:fit", given, threads=setting.threads)
            asked = {"run": str(made.path), "names": NAMES, "truth": truth, "moves": moves, "folder": folder}
            judged = call("benchmarks.align_score:against_truth", {**asked, "found": done.value}, threads=1).value
        for angle, entry, row in zip(angles, done.value, judged, strict=True):
            rows.append({"seed": seed, "angle": angle, "fit": entry, **row})
        worst = max(row["degrees"] for row in judged), max(row["rigid"] for row in judged)
        say(f"simulated {name} seed {seed}: at worst {worst[0]:.2f}°, {worst[1]:.2f} pitches")
    return {"title": case.title, "settings": {**case.simulate, **case.align}, "spots": spots, "rows": rows}


def sized(setting: Setting, spots: int) -> dict[str, Any]:
    """Align and refine two slices of full overlap, one by a random turn: time and memory."""
    spec = {"spots": spots, "genes": setting.genes, "seed": setting.seeds[0], "overlap": 1.0}
    made = simulated_run(spec, setting.folder, setting.threads, list(setting.words))
    moves = [drawn_move(setting.seeds[0], spots)]
    with tempfile.TemporaryDirectory(dir=setting.folder) as folder:
        given = {"run": str(made.path), "source": NAMES[1], "target": NAMES[0], "moves": moves}
        given |= {"settings": {}, "folder": folder, "threads": setting.threads, "refined": True}
        done = call("benchmarks.align_fit:fit", given, threads=setting.threads)
        asked = {"run": str(made.path), "names": NAMES, "truth": read_truth(made), "moves": moves, "folder": folder}
        judged = call("benchmarks.align_score:against_truth", {**asked, "found": done.value}, threads=1).value
    entry = done.value[0]
    say(f"2 × {spots}: {done.seconds:.1f} s, {done.peak_rss_mib:.0f} MiB, {judged[0]['rigid']:.2f} pitches")
    return {
        "spots": spots,
        "seconds": done.seconds,
        "align_seconds": entry["seconds"],
        "refine_seconds": entry.get("refine_seconds"),
        "peak_rss_mib": done.peak_rss_mib,
        "integrate": made.cost,
        **judged[0],
    }


def sizes(setting: Setting, spots: int, repeats: int) -> dict[str, Any]:
    """Measure `sized` so many times, each with an integration of its own; return the first, with medians of seconds."""
    rows = []
    for k in range(repeats):
        folder = setting.folder / f"again-{k}" if k else setting.folder  # PASTE finds the slices of the first there
        folder.mkdir(exist_ok=True)
        rows.append(sized(replace(setting, folder=folder), spots))
    return middle(rows)


def middle(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the first row with the medians of all rows' seconds, and the seconds of each as `runs`."""
    found = {**rows[0], "integrate": {**rows[0]["integrate"]}}
    for key in ("seconds", "align_seconds", "refine_seconds"):
        found[key] = statistics.median(row[key] for row in rows)
    found["integrate"]["seconds"] = statistics.median(row["integrate"]["seconds"] for row in rows)
    found["runs"] = [{"integrate": row["integrate"]["seconds"], "align": row["seconds"]} for row in rows]
    return found


def sized_paste(setting: Setting, spots: int) -> dict[str, Any]:
    """Measure PASTE on the slices of `sized`."""
    spec = {"spots": spots, "genes": setting.genes, "seed": setting.seeds[0], "overlap": 1.0}
    made = simulated_run(spec, setting.folder, setting.threads, list(setting.words))
    with tempfile.TemporaryDirectory(dir=setting.folder) as folder:
        move = drawn_move(setting.seeds[0], spots)
        done = paste_pair(setting.paste, made, NAMES[1], NAMES[0], move, Path(folder))
        plan = done.pop("plan", None)
        if plan:
            asked = {"run": str(made.path), "source": NAMES[1], "target": NAMES[0], "plans": {"paste": plan}}
            found = call("benchmarks.align_score:against_labels", {**asked, "label": "domain"}, threads=1)
            done["labels"] = found.value["paste"]
    say(f"PASTE, 2 × {spots}: {done}")
    return {"spots": spots, **done}
