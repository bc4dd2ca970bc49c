"""Coarse alignment: every rotation of a grid, and for each of them every shift, by correlation of rasters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stscale.alignment.transform import Kind, Transform
from stscale.alignment.view import Cloud

CELLS = 40
"""Cells along the longer side of the larger slice."""

LONGEST_CHANNELS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A coarse transform and how well it fits.

    Attributes
    ----------
    transform
        Source → target.
    score
        Gain over no overlap, see `coarse_starts`; higher is better.
    overlap
        Cells both slices cover, as a share of the smaller slice's.
    """

    transform: Transform
    score: float
    overlap: float


def coarse_starts(
    source: Cloud,
    target: Cloud,
    *,
    rotations: int = 72,
    scales: tuple[float, ...] = (1.0,),
    kind: Kind = "rigid",
    mirror: bool = False,
    tolerance: float = 0.5,
    min_overlap: float = 0.1,
    keep: int = 12,
) -> list[Start]:
    """Find the best coarse transforms over all rotations and shifts.

    Both slices are rasterised; for a rotation and a scale the squared difference over the common cells is,
    for all shifts at once, three correlations of rasters (fast Fourier transform):
    Σ mₛ mₜ ‖zₛ − zₜ‖² = mₜ⋆mₛ‖zₛ‖² + mₜ‖zₜ‖²⋆mₛ − 2 Σ_c mₜzₜ⋆mₛzₛ. A shift scores Σ (tolerance − ‖zₛ − zₜ‖²) over
    the common cells, divided by the cells of the smaller slice: cells that agree better than the tolerance pay for
    overlap, cells that do not cost.

    Parameters
    ----------
    source, target
        Spots with channels whose variances sum to about 1.
    rotations
        Angles tried, evenly over the circle.
    scales
        Scales tried.
    kind
        Kind of the transforms returned (an affine one starts as a similarity).
    mirror
        Search among mirror images instead.
    tolerance
        See above; unrelated cells differ by about 2.
    min_overlap
        Smaller overlaps are not considered.
    keep
        Largest number of starts returned, best first, one per neighbourhood of rotations.
    """
    centre_s, centre_t = _middle(source.xy), _middle(target.xy)
    flip = np.diag([1.0, -1.0 if mirror else 1.0])
    xs, xt = (source.xy - centre_s) @ flip, target.xy - centre_t
    reach = max(float(np.abs(xt).max()), float(np.linalg.norm(xs, axis=1).max()) * max(scales))
    cell = 2.0 * max(float(np.abs(xt).max()), float(np.abs(xs).max()) * max(scales)) / CELLS
    half = int(np.ceil(reach / cell)) + 1
    size = 4 * half  # rasters of 2·half cells, padded so that no shift wraps around
    fixed, cells_t = _spectra(xt, target.values[:, :LONGEST_CHANNELS], cell, half, size)
    found: list[tuple[float, float, NDArray[np.float64], NDArray[np.float64]]] = []
    for scale in scales:
        for angle in 2.0 * np.pi * np.arange(rotations) / rotations:
            turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            moving, cells_s = _spectra(xs @ turn.T, source.values[:, :LONGEST_CHANNELS], cell, half, size)
            least = max(1, min(cells_s, cells_t))
            common = _correlate(fixed[:1], moving[:1], size)
            gap = _correlate(np.stack([fixed[0], fixed[1]]), np.stack([moving[1], moving[0]]), size)
            gap -= 2.0 * _correlate(fixed[2:], moving[2:], size)
            score = np.where(common >= min_overlap * least, (tolerance * common - gap) / least, -np.inf)
            place = np.unravel_index(int(np.argmax(score)), score.shape)
            moved = ((np.array(place) + size // 2) % size - size // 2).astype(np.float64) * cell
            found.append((float(score[place]), float(common[place]) / least, turn, moved))
    found.sort(key=lambda entry: -entry[0])
    starts: list[Start] = []
    kept: list[NDArray[np.float64]] = []
    for score_, overlap, turn, step in found:
        # a neighbour in angle or scale polishes to the same place
        if not np.isfinite(score_) or any(np.linalg.norm(turn - other) < 3.2 * np.pi / rotations for other in kept):
            continue
        kept.append(turn)
        linear = turn @ flip if kind != "rigid" else (turn / np.sqrt(abs(np.linalg.det(turn)))) @ flip
        shift = centre_t + step - linear @ centre_s
        starts.append(Start(transform=Transform.from_parts(linear, shift, kind), score=score_, overlap=overlap))
        if len(starts) == keep:
            break
    return starts


def _middle(xy: NDArray[np.float64]) -> NDArray[np.float64]:
    middle: NDArray[np.float64] = (xy.min(axis=0) + xy.max(axis=0)) / 2
    return middle


def _spectra(
    xy: NDArray[np.float64], values: NDArray[np.float64], cell: float, half: int, size: int
) -> tuple[NDArray[np.complex128], int]:
    """Fourier transforms of mask, mask·‖z‖² and mask·z as rasters, and the number of cells with spots."""
    place = np.clip(np.floor(xy / cell).astype(np.int64) + half, 0, 2 * half - 1)
    flat = place[:, 0] * (2 * half) + place[:, 1]
    cells = 4 * half * half
    count = np.bincount(flat, minlength=cells)
    mask = count > 0
    means = np.stack([np.bincount(flat, column, cells) for column in values.T]) / np.maximum(count, 1)
    planes = np.concatenate([mask[None].astype(np.float64), (means**2).sum(axis=0)[None], means])
    spectra = np.fft.rfft2(planes.reshape(-1, 2 * half, 2 * half), s=(size, size))
    return spectra, int(mask.sum())


def _correlate(fixed: NDArray[np.complex128], moving: NDArray[np.complex128], size: int) -> NDArray[np.float64]:
    """Σ over planes and cells of fixed(x + step)·moving(x), for every step (cyclic), (size, size)."""
    result: NDArray[np.float64] = np.fft.irfft2((fixed * moving.conj()).sum(axis=0), s=(size, size))
    return result
