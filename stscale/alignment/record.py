"""What an alignment found, as transforms.json holds it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stscale.alignment.transform import Transform
from stscale.alignment.warp import Warp
from stscale.atomic import atomic_path
from stscale.errors import InputError
from stscale.rundir import read_manifest
from stscale.slices import keys

FORMAT = "stscale-alignment-1"
FILE = "transforms.json"
FOLDER = "alignment"
"""Of a run: what was found for each pair."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRecord:
    """One slice laid on another.

    Attributes
    ----------
    source, target
        Names.
    transform
        Source → target, in the unit of the alignment.
    warp
        Displacement after it, or None.
    score, agreement, coverage, residual, inlier_share, mirror, credible
        As in `PairResult`.
    overlap
        Estimated share of the source that has a counterpart.
    refined
        Whether the plan is that of the transport refinement; else it holds the matches.
    entries, plan_coverage
        Correspondences, and share of source spots that have one.
    plan_error, anchor_value
        As in `Refined`; NaN where not refined.
    converged
        Whether the refinement converged; True where there was none.
    plan
        File of the plan (`Plan.load`), in the run's folder `alignment/`; n, m: the slices' spots with an embedding,
        in the order of integrated.zarr.
    notes
        What a reader must know, one line each.
    """

    source: str
    target: str
    transform: Transform
    warp: Warp | None
    score: float
    agreement: float
    coverage: tuple[float, float]
    residual: float
    inlier_share: float
    mirror: bool
    credible: bool
    overlap: float
    refined: bool
    entries: int
    plan_coverage: float
    plan_error: float
    anchor_value: float
    converged: bool
    plan: str
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; what is not a number is null."""
        held = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("transform", "warp")}
        plain = {name: _number(value) for name, value in held.items()}
        warp = None if self.warp is None else {f.name: _listed(getattr(self.warp, f.name)) for f in fields(self.warp)}
        return {**self.transform.to_dict(), **plain, "warp": warp}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PairRecord:
        """Read what `to_dict` wrote.

        Raises
        ------
        InputError
            When something is missing.
        """
        try:
            plain = {f.name: values[f.name] for f in fields(cls) if f.name not in ("transform", "warp")}
            for name in ("score", "agreement", "residual", "inlier_share", "plan_error", "anchor_value", "overlap"):
                plain[name] = math.nan if plain[name] is None else float(plain[name])
            plain["coverage"], plain["notes"] = tuple(plain["coverage"]), tuple(plain["notes"])
            told, warp = values["warp"], None
            if told is not None:
                arrays = {name: np.asarray(told[name], np.float64) for name in ("points", "moves")}
                warp = Warp(**{**told, **arrays, "notes": tuple(told["notes"])})
        except (KeyError, TypeError) as error:
            raise InputError(f"no pair of slices in {sorted(values)!r} ({error}); align again with --fresh") from error
        return cls(transform=Transform.from_dict(values), warp=warp, **plain)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """All slices of a run in one frame; s slices, p pairs.

    Attributes
    ----------
    names
        Slices, in the order of the run.
    reference
        The slice whose frame is kept.
    unit
        Of the frame and of all lengths: `"µm"`, or `"unit of the reference"`.
    um_per_unit
        Factor from each slice's coordinates to µm; None where the frame is not in µm.
    transforms
        Slice → frame, both in `unit`.
    z
        (s,) heights in `unit`, or None when they were not told.
    pairs
        What was found for each pair.
    gaps, weights
        (p,) as `Stack.residuals` and `Stack.weights`.
    notes
        What must be said, one line each.
    """

    names: tuple[str, ...]
    reference: str
    unit: str
    um_per_unit: tuple[float | None, ...]
    transforms: tuple[Transform, ...]
    z: NDArray[np.float64] | None
    pairs: tuple[PairRecord, ...]
    gaps: NDArray[np.float64]
    weights: NDArray[np.float64]
    notes: tuple[str, ...]

    def matrix(self, i: int) -> NDArray[np.float64]:
        """Return (3, 3) from the coordinates of slice `i` as given to the frame; a warp comes on top."""
        return self.transforms[i].matrix @ np.diag([self._factor(i), self._factor(i), 1.0])

    def place(self, i: int, xy: ArrayLike) -> NDArray[np.float64]:
        """Map positions (n, 2) of slice `i`, as given, into the frame: its transform, and the warps on its way.

        A warp lives in the frame of its pair's target; the way leads over the most trusted pairs to the reference.
        A pair walked from target to source has no warp in that direction.
        """
        at, way = np.asarray(xy, np.float64) * self._factor(i), self._ways()
        moved, here = self.transforms[i].apply(at), i
        while here in way:
            pair = way[here]
            source, onward = self.names.index(pair.source), self.names.index(pair.target)
            if source != here:
                onward = source
            elif pair.warp is not None:
                frame = self.transforms[onward]
                moved = frame.apply(pair.warp.apply(frame.inverse().apply(moved)))
            here = onward
        return moved

    def unwarped(self) -> tuple[str, ...]:
        """Names of slices that a warp of their pair does not reach because it was laid the other way round."""
        way = self._ways()
        return tuple(self.names[i] for i, p in way.items() if p.warp is not None and p.source != self.names[i])

    def _factor(self, i: int) -> float:
        factor = self.um_per_unit[i]
        return 1.0 if factor is None else factor

    def _ways(self) -> dict[int, PairRecord]:
        """Return the pair that leads each slice one step towards the reference."""
        place = {name: number for number, name in enumerate(self.names)}
        joined, way = {place[self.reference]}, {}
        while len(joined) < len(self.names):
            ends = [(place[p.source], place[p.target]) for p in self.pairs]
            open_ = [e for e, (s, t) in enumerate(ends) if (s in joined) != (t in joined)]
            best = max(open_, key=lambda e: (self.pairs[e].score, -e))
            source, target = ends[best]
            new = target if source in joined else source
            way[new] = self.pairs[best]
            joined.add(new)
        return way

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        slices = [
            {
                **transform.to_dict(),
                "name": name,
                "matrix": self.matrix(i).tolist(),
                "um_per_unit": self.um_per_unit[i],
                "z": None if self.z is None else float(self.z[i]),
            }
            for i, (name, transform) in enumerate(zip(self.names, self.transforms, strict=True))
        ]
        pairs = [
            {**pair.to_dict(), "unit": self.unit, "frame_gap": float(gap), "frame_weight": float(weight)}
            for pair, gap, weight in zip(self.pairs, self.gaps, self.weights, strict=True)
        ]
        return {
            "format": FORMAT,
            "unit": self.unit,
            "reference": self.reference,
            "slices": slices,
            "pairs": pairs,
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Alignment:
        """Read what `to_dict` wrote.

        Raises
        ------
        InputError
            Another format, or something is missing.
        """
        if values.get("format") != FORMAT:
            raise InputError(f"transforms of format {values.get('format')!r}, expected {FORMAT!r}; align again")
        try:
            slices, pairs = values["slices"], values["pairs"]
            factors = [s["um_per_unit"] for s in slices]
            transforms = [
                Transform(
                    kind=s["kind"],
                    matrix=np.array(s["matrix"]) @ np.diag([1 / (f or 1.0), 1 / (f or 1.0), 1.0]),
                )
                for s, f in zip(slices, factors, strict=True)
            ]
            heights = [s["z"] for s in slices]
            return cls(
                names=tuple(s["name"] for s in slices),
                reference=values["reference"],
                unit=values["unit"],
                um_per_unit=tuple(factors),
                transforms=tuple(transforms),
                z=None if None in heights else np.array(heights, np.float64),
                pairs=tuple(PairRecord.from_dict(p) for p in pairs),
                gaps=np.array([p["frame_gap"] for p in pairs], np.float64),
                weights=np.array([p["frame_weight"] for p in pairs], np.float64),
                notes=tuple(values["notes"]),
            )
        except (KeyError, TypeError) as error:
            raise InputError(f"{FILE} is damaged ({error!r}); align again with --fresh") from error

    def save(self, run: Path) -> None:
        """Write transforms.json of a run."""
        with atomic_path(run / FILE) as part:
            part.write_text(json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_alignment(run: Path) -> Alignment | None:
    """Read the alignment of a run; None when it has none, or one that was not finished.

    Raises
    ------
    InputError
        When transforms.json is damaged.
    """
    here = run / "integrated.zarr" / "obsm" / keys.SPATIAL_ALIGNED
    if "align" not in read_manifest(run)["stages"] or not here.is_dir() or not (run / FILE).is_file():
        return None
    try:
        values = json.loads((run / FILE).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"{run / FILE} is damaged ({error}); align again with --fresh") from error
    return Alignment.from_dict(values)


def plan_path(run: Path, pair: PairRecord) -> Path:
    """Return where the plan of a pair is saved."""
    return run / FOLDER / pair.plan


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else _listed(value)


def _listed(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
