"""One slice laid on another: match, search, polish, and what is to be said about the result."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stscale.alignment.field import Field
from stscale.alignment.match import Matches, match
from stscale.alignment.polish import Fit, Side, chance_agreement, judge, polish, side_of
from stscale.alignment.robust import robust_fit
from stscale.alignment.search import coarse_starts
from stscale.alignment.transform import Transform
from stscale.alignment.view import Cloud, SliceView, channels
from stscale.alignment.warp import Warp, fit_warp
from stscale.errors import InputError
from stscale.sections import Align

LEVELS = (500, 2000, 8000)
"""Cells over the tissue, coarse to fine, before the spots themselves."""
ROUGH, WIDE, FINE = 0.2, 1.0, 0.15
"""s² of the robust loss, on the cells and, in two turns, on the spots; the channels' variances sum to 1."""
FREE_SCALES = tuple(float(s) for s in np.geomspace(0.7, 1 / 0.7, 7))
"""Scales tried where the scale is free."""
FINALISTS = 3
SHARP = 0.05
"""s² by which the two orientations are compared once both lie as well as they can: layers look alike from afar."""
MIRROR_GAIN = 1.05
"""A mirror image is reported when its sharp score is this many times the other's."""
HOPEFUL = 0.8
"""A mirror image whose score is below this share of the other's before the last polish is not followed."""
SCRAMBLES, MORE, DOUBTFUL = 3, 9, 1.5
"""Searches by chance, with the source's channels turned at random, and how many more where the score is below so many
times the best of them: now and then slices without common tissue are above the best of three."""
CREDIBLE = 1.15
"""A score must be this many times the best search by chance.
Slices of different parts of one layered tissue pass: that they have no spot in common cannot be told."""
INLIER = 5.0
"""A match is an inlier within this many spacings of the matched spots."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairResult:
    """How one slice lies on another.

    Attributes
    ----------
    source, target
        Names.
    transform
        Source → target.
    score
        On the coarsest level, see `Fit.score`: 1 is full overlap in full agreement, 0 chance.
    agreement
        1 − mean ρ over the overlap, in [0, 1].
    coverage
        Shares of source and target covered by the other slice's spots.
    residual
        Weighted mean distance of the inlying matches under the transform, in the units of the target.
        Along a layer every spot looks alike, so this is far larger than the error of the transform.
    inlier_share
        Share of the matches' weight within `INLIER` spacings.
    mirror
        Whether the mirror image fits clearly better; the transform is one only when that was allowed.
    credible
        Whether the slices seem to have tissue in common at all.
    notes
        What a reader must know, one line each.
    matches
        The inlying matches.
    warp
        Displacement after the transform, or None.
    """

    source: str
    target: str
    transform: Transform
    score: float
    agreement: float
    coverage: tuple[float, float]
    residual: float
    inlier_share: float
    mirror: bool
    credible: bool
    notes: tuple[str, ...]
    matches: Matches
    warp: Warp | None

    def lay(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where points (n, 2) of the source lie on the target, (n, 2), after the warp if there is one."""
        moved = self.transform.apply(xy)
        return moved if self.warp is None else self.warp.apply(moved)


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """Both slices at one resolution: fields and the points that are compared."""

    fields: tuple[Field, Field]
    sides: tuple[Side, Side]
    chance: float
    sharp_chance: float

    @classmethod
    def build(cls, clouds: tuple[Cloud, Cloud], *, most: int, erode: bool, rng: np.random.Generator) -> Level:
        """Fit both fields."""
        first, second = (Field.fit(cloud, erode=erode) for cloud in clouds)
        sides = side_of(first, most=most, rng=rng), side_of(second, most=most, rng=rng)
        chance, sharp = (chance_agreement(*sides, s2, rng) for s2 in (ROUGH, SHARP))
        return cls(fields=(first, second), sides=sides, chance=chance, sharp_chance=sharp)

    def scrambled(self, turn: NDArray[np.float64]) -> Level:
        """Return the level with the source's channels turned by an orthogonal matrix (c, c)."""
        field, side = self.fields[0], self.sides[0]
        return replace(
            self,
            fields=(replace(field, value=field.value @ turn, slope=field.slope @ turn), self.fields[1]),
            sides=(replace(side, values=side.values @ turn), self.sides[1]),
        )

    def judge(self, transform: Transform) -> Fit:
        """Score a transform."""
        return judge(*self.sides, self.fields, transform, s2=ROUGH, chance=self.chance)

    def sharp_score(self, transform: Transform) -> float:
        """Score a transform by a narrower loss, where the slip of a layer along itself shows."""
        return judge(*self.sides, self.fields, transform, s2=SHARP, chance=self.sharp_chance).score

    def shared(self, transform: Transform) -> float:
        """Share of the points that count, of the slice that is covered more, over such points of the other."""
        (source, target), (first, second) = self.sides, self.fields
        there, here = second.lies(transform.apply(source.xy)), first.lies(transform.inverse().apply(target.xy))
        return float(max(there.mean(), here.mean()))

    def polish(self, start: Transform, *, s2: float, kind: Literal["rigid", "similarity", "affine"]) -> Transform:
        """Move a transform to where the channels agree best."""
        return polish(*self.sides, self.fields, start, s2=s2, kind=kind)


def align_pair(source: SliceView, target: SliceView, config: Align, *, seed: int = 0) -> PairResult:
    """Find the transform that lays `source` on `target`, from latents and positions alone.

    1. Matches by latents (`match`) give a robust fit (`robust_fit`); all rotations and shifts of rasters give
       others (`coarse_starts`): layers look alike all along, so matches alone can settle on a slip.
    2. Every start is polished on square cells and scored there (`polish`, `judge`); so is the mirror image.
       Positions where less than `config.min_overlap` of the spots off the edge lie on such spots are left out.
    3. The best go down the levels to the spots, without the spots on the edge, and the best score stays. A mirror
       image is reported when it then explains the tissue clearly better, by a loss that small slips show in.
    4. With `config.warp`, a smooth displacement on top (`fit_warp`).

    Memory is O(n·(channels + k)); no step costs more than O(n log n).

    Parameters
    ----------
    source, target
        The slices, in the same unit of length where both sources tell it.
    config
        Options.
    seed
        Of anchors, minimal sets and subsamples.

    Raises
    ------
    InputError
        Latents that hold nothing to match by, or of different widths; no position where the slices overlap by
        `config.min_overlap`.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    clouds = channels(source, target, center=config.center, width=config.channels)
    rigid = config.kind == "rigid"
    matches = match(source, target, clouds, rng=rng, k=config.k, anchors=config.anchors, keep_scale=rigid, seed=seed)
    levels = _levels(clouds, config, rng)
    smooth = _smooth(levels[-1])
    notes: list[str] = []
    straight = _candidates(source, target, matches, smooth, levels, config, rng, mirror=False)
    mirrored = _candidates(source, target, matches, smooth, levels, config, rng, mirror=True)
    null = _null_score(source, target, matches, smooth, levels, config, rng)
    fit, better = _oriented(straight, mirrored, levels, config, null, notes, source.name)
    if fit is None:
        raise InputError(
            f"{source.name!r} and {target.name!r} overlap nowhere by {config.min_overlap:.0%}, "
            "edges left out; lower align.min_overlap"
        )
    if CREDIBLE * null <= fit.score < DOUBTFUL * null:
        null = max(null, _null_score(source, target, matches, smooth, levels, config, rng, tries=MORE))
    credible = fit.score >= CREDIBLE * null and fit.overlap >= config.min_overlap
    if not credible:
        notes.append(
            f"{source.name!r} and {target.name!r} agree no better (score {fit.score:.3f}, "
            f"chance {null:.3f}, overlap {fit.overlap:.2f}) "
            "than slices without common tissue: do not trust this transform"
        )
    distance = np.linalg.norm(fit.transform.apply(source.xy[matches.source]) - target.xy[matches.target], axis=1)
    spacing = target.pitch * max(1.0, float(np.sqrt(max(source.n, target.n) / config.anchors)))
    inlier = distance <= INLIER * spacing
    warp = None
    if config.warp and credible:
        warp = fit_warp(levels[-1].fields, fit.transform, points=config.warp_points, stiffness=config.warp_stiffness)
        notes.extend(warp.notes)
    return PairResult(
        source=source.name,
        target=target.name,
        transform=fit.transform,
        score=fit.score,
        agreement=fit.agreement,
        coverage=_coverage(levels[-1].fields, fit.transform),
        residual=float(np.average(distance[inlier], weights=matches.weight[inlier])) if inlier.any() else float("nan"),
        inlier_share=float(matches.weight[inlier].sum() / matches.weight.sum()),
        mirror=better,
        credible=credible,
        notes=tuple(notes),
        matches=Matches(source=matches.source[inlier], target=matches.target[inlier], weight=matches.weight[inlier]),
        warp=warp,
    )


def _levels(clouds: tuple[Cloud, Cloud], config: Align, rng: np.random.Generator) -> list[Level]:
    """Build cells of falling side, then the spots (always two levels at least)."""
    area = max(float(np.prod(np.ptp(cloud.xy, axis=0))) for cloud in clouds)
    spots = max(len(cloud.xy) for cloud in clouds)
    levels = []
    for cells in LEVELS:
        if cells < 0.8 * spots:
            coarse = tuple(cloud.coarsen(float(np.sqrt(area / cells))) for cloud in clouds)
            levels.append(Level.build((coarse[0], coarse[1]), most=config.max_points, erode=False, rng=rng))
    if not levels:
        levels.append(Level.build(clouds, most=config.max_points, erode=False, rng=rng))
    return [*levels, Level.build(clouds, most=config.max_points, erode=True, rng=rng)]


def _smooth(level: Level) -> tuple[Cloud, Cloud]:
    first, second = (Cloud(xy=field.xy, values=field.value) for field in level.fields)
    return first, second


def _candidates(
    source: SliceView,
    target: SliceView,
    matches: Matches,
    smooth: tuple[Cloud, Cloud],
    levels: list[Level],
    config: Align,
    rng: np.random.Generator,
    *,
    mirror: bool,
) -> list[Fit]:
    """Polish the coarse starts of one orientation; the fits with enough overlap, best first."""
    kind: Literal["rigid", "similarity"] = "rigid" if config.kind == "rigid" else "similarity"
    starts = [
        start.transform
        for start in coarse_starts(
            *smooth,
            rotations=config.rotations,
            scales=(1.0,) if kind == "rigid" else FREE_SCALES,
            kind=kind,
            mirror=mirror,
            min_overlap=config.min_overlap,
            keep=config.starts,
        )
    ]
    flip = Transform.from_parts(np.diag([1.0, -1.0 if mirror else 1.0]), np.zeros(2))
    pairs = flip.apply(source.xy[matches.source]), target.xy[matches.target]
    if len(np.unique(pairs[0], axis=0)) >= 3 and len(np.unique(pairs[1], axis=0)) >= 3:
        starts.append(robust_fit(*pairs, matches.weight, kind=kind, rng=rng).transform.compose(flip))
    fits = [levels[0].judge(levels[0].polish(start, s2=ROUGH, kind=kind)) for start in starts]
    # a few spots of an edge on an edge agree by chance, and describe tissue further in at that
    held = [fit for fit in fits if levels[-1].shared(fit.transform) >= config.min_overlap]
    return sorted(held, key=lambda fit: -fit.score)


def _null_score(
    source: SliceView,
    target: SliceView,
    matches: Matches,
    smooth: tuple[Cloud, Cloud],
    levels: list[Level],
    config: Align,
    rng: np.random.Generator,
    *,
    tries: int = SCRAMBLES,
) -> float:
    """Best score that the same search reaches when the source's channels mean something else (random turns)."""
    best = 0.0
    for _ in range(tries):
        width = smooth[0].values.shape[1]
        turn = np.linalg.qr(rng.standard_normal((width, width)))[0]
        other = replace(smooth[0], values=smooth[0].values @ turn)
        scrambled = [levels[0].scrambled(turn), levels[-1]]
        fits = _candidates(source, target, matches, (other, smooth[1]), scrambled, config, rng, mirror=False)
        best = max(best, fits[0].score if fits else 0.0)
    return best


def _oriented(
    straight: list[Fit],
    mirrored: list[Fit],
    levels: list[Level],
    config: Align,
    null: float,
    notes: list[str],
    name: str,
) -> tuple[Fit | None, bool]:
    """Take both orientations to the spots; return the fit that stands, and whether the mirror image is better."""
    upright = _descend(straight, levels, config)
    least = max(CREDIBLE * null, HOPEFUL * straight[0].score if straight else 0.0)
    flipped = _descend(mirrored, levels, config) if mirrored and mirrored[0].score > least else None
    scores = [levels[0].sharp_score(fit.transform) if fit else 0.0 for fit in (upright, flipped)]
    better = flipped is not None and scores[1] > MIRROR_GAIN * scores[0]
    if better:
        notes.append(_mirror_note(name, scores[1], scores[0], allowed=config.allow_mirror))
    return flipped if better and config.allow_mirror else upright, better


def _descend(chosen: list[Fit], levels: list[Level], config: Align) -> Fit | None:
    """Take the best distinct candidates to the spots; judge all of them on the coarsest level. None without any."""
    finalists: list[Transform] = []
    reach = float(np.ptp(levels[0].sides[0].xy, axis=0).max())
    for fit in chosen:
        far = [np.linalg.norm((fit.transform.matrix - other.matrix) * [[1, 1, 1 / reach]]) for other in finalists]
        if all(distance > 0.02 for distance in far):
            finalists.append(fit.transform)
        if len(finalists) == FINALISTS:
            break
    best: Fit | None = None
    for start in finalists:
        transform = start
        for level in levels[1:]:
            # wide first: nearly least squares reaches further
            for s2 in (WIDE, FINE):
                transform = level.polish(transform, s2=s2, kind=config.kind)
        fit = levels[0].judge(transform)
        if best is None or fit.score > best.score:
            best = fit
    return best


def _coverage(fields: tuple[Field, Field], transform: Transform) -> tuple[float, float]:
    first, second = fields
    return second.covers(transform.apply(first.xy)), first.covers(transform.inverse().apply(second.xy))


def _mirror_note(name: str, mirrored: float, straight: float, *, allowed: bool) -> str:
    verdict = "it was taken" if allowed else "it was not taken; align.allow_mirror accepts it"
    return f"slice {name!r} seems to be mirrored (score {mirrored:.3f} against {straight:.3f}): {verdict}"
