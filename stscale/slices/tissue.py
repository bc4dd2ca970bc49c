"""An imaginary tissue: which domain lies where, and how a slice is cut from it and laid on its slide.

Lengths in this file are in *extents* (the side of the square around one slice) unless a name ends in
``_um``. The tissue is a strip without end along x, made cell by cell from the seed, so that slice i of a
series with partial overlap exists without the slices before it.
"""

from dataclasses import dataclass
from math import ceil, floor, pi, sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

RARE_SHARE = 0.03  # of a slice's area, the smallest patch domain
WAVES = 3  # sine terms of a warp
OUTLINE_WAVES = np.arange(2, 7)  # lobes of the outline
_TISSUE, _CELL, _PLACE = 0, 1, 2  # first number of the spawn keys used here; counts use 3 and up

Kind = Literal["layers", "patches", "mixed"]


def generator(seed: int, *key: int) -> np.random.Generator:
    """Return the generator that belongs to one named part of the simulation, whatever was drawn before."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tissue:
    """Domains as a function of position.

    The last domain of kinds "patches" and "mixed" is rare (`RARE_SHARE` of the area, one blob per extent).

    Attributes
    ----------
    seed
        Seed the tissue came from.
    kind
        "layers": K bands. "patches": a third of the domains are bands, the others lie on them as patches.
        "mixed": two thirds are bands, every second band carries patches.
    domains
        K.
    bands
        Number of domains that are bands, from low to high y.
    edges : (bands - 1,) float64
        Upper edges of the bands in the curved coordinate.
    phase : (9,) float64
        Phases of the waves that bend bands, patches and gradients.
    lobes : (2, 5) float64
        Amplitude and phase of the outline's lobes.
    """

    seed: int
    kind: Kind
    domains: int
    bands: int
    edges: NDArray[np.float64]
    phase: NDArray[np.float64]
    lobes: NDArray[np.float64]

    @classmethod
    def build(cls, *, seed: int, kind: Kind, domains: int) -> "Tissue":
        """Draw the tissue that belongs to a seed."""
        rng = generator(seed, _TISSUE)
        bands = {"layers": domains, "patches": domains // 3, "mixed": domains - domains // 3}[kind]
        # a rare patch needs a background, and with two domains there is room for nothing else
        bands = domains if kind == "layers" else min(max(1, bands), domains - 1)
        width = rng.uniform(0.7, 1.5, bands)
        amplitude = rng.uniform(0.3, 1.0, len(OUTLINE_WAVES))
        return cls(
            seed=seed,
            kind=kind,
            domains=domains,
            bands=bands,
            edges=np.cumsum(width / width.sum())[:-1],
            phase=rng.uniform(0, 2 * pi, 9),
            lobes=np.stack([0.1 * amplitude / amplitude.sum(), rng.uniform(0, 2 * pi, len(OUTLINE_WAVES))]),
        )

    def domain(self, xy: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the domain (n,), 0 to K - 1, of positions (n, 2)."""
        label = self._band(xy)
        if self.bands == self.domains:
            return label
        bent = xy + 0.025 * np.sin(2 * pi * 1.6 * xy[:, ::-1] + self.phase[3:5])
        cells = range(floor(bent[:, 0].min()) - 1, floor(bent[:, 0].max()) + 2)
        parts = [self._cell(cell) for cell in cells]
        sites, owner = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
        if (owner >= 0).any():
            from scipy.spatial import cKDTree

            nearest = owner[cKDTree(sites).query(bent)[1]]
            label = np.where((nearest >= 0) & self._carries(label), nearest, label)
        radius = sqrt(RARE_SHARE * self.area() / pi)
        for _, _, centre in parts:
            label[((bent - centre) ** 2).sum(axis=1) < radius**2] = self.domains - 1
        return label

    def fields(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return two smooth functions (n, 2) in [-1, 1] of positions (n, 2): gradients inside domains."""
        return np.sin(2 * pi * np.array([0.6, 0.8]) * xy + self.phase[5:7])

    def inside(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the depth (n,) of positions (n, 2) relative to a slice's centre; 0 on the outline, 1 at 0."""
        angle = np.arctan2(xy[:, 1], xy[:, 0])
        return 1 - ((xy**4).sum(axis=1)) ** 0.25 / (0.5 * self._swell(angle))

    def area(self) -> float:
        """Area within the outline, in squared extents."""
        angle = np.linspace(0, 2 * pi, 4096, endpoint=False)
        radius = 0.5 * self._swell(angle) / (np.cos(angle) ** 4 + np.sin(angle) ** 4) ** 0.25
        return float(pi * (radius**2).mean())

    def _swell(self, angle: NDArray[np.float64]) -> NDArray[np.float64]:
        total = np.ones_like(angle)
        for wave, size, phase in zip(OUTLINE_WAVES, *self.lobes, strict=True):
            total += size * np.cos(wave * angle + phase)
        return total

    def _band(self, xy: NDArray[np.float64]) -> NDArray[np.int64]:
        x, y = xy.T
        a, b, c = self.phase[:3]
        curved = y + 0.07 * np.sin(2 * pi * 0.7 * x + a) + 0.025 * np.sin(2 * pi * 1.7 * x + b)
        # the last wave runs along y too: it makes the thickness of a band change along the band
        curved += 0.02 * np.sin(2 * pi * (1.1 * x + y) + c)
        return np.searchsorted(self.edges, curved, side="right").astype(np.int64)

    def _carries(self, band: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether a band carries patches."""
        return np.ones(len(band), bool) if self.kind == "patches" or self.bands < 2 else band % 2 == 1

    def _cell(self, cell: int) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
        """Return sites (m, 2), their patch domain or -1 (m,), and the rare blob's centre of one unit of x."""
        rng = generator(self.seed, _CELL, cell + 8)  # spawn keys are not negative; the strip starts near -1
        common = self.domains - self.bands - 1
        side = max(4, ceil(2 * sqrt(common)))
        grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2)
        sites = (grid + rng.uniform(0.2, 0.8, grid.shape)) / side + [cell, 0]
        owner = np.full(len(sites), -1, dtype=np.int64)
        # dealt in turn to half the sites that can carry one: each patch domain has its share in each cell
        able = rng.permutation(np.flatnonzero(self._carries(self._band(sites))))
        if common > 0:
            dealt = able[: max(common, len(able) // 2)]
            owner[dealt] = self.bands + np.arange(len(dealt)) % common
        return sites, owner, np.array([cell, 0.0]) + rng.uniform([0.35, 0.3], [0.65, 0.7])


@dataclass(frozen=True, slots=True, kw_only=True)
class Warp:
    """A smooth displacement w(p) = Σ_k a_k sin(2π f_k·p / L + φ_k) of the common frame, invertible.

    Attributes
    ----------
    amplitude_um : (3, 2) float64
        a_k; their lengths sum to the largest displacement.
    frequency : (3, 2) float64
        f_k, waves per extent, no longer than 0.75: with amplitudes up to 0.2 extents the slope stays below 1.
    phase : (3,) float64
        φ_k, radians.
    extent_um
        L.
    """

    amplitude_um: NDArray[np.float64]
    frequency: NDArray[np.float64]
    phase: NDArray[np.float64]
    extent_um: float

    def displacement(self, xy_um: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return w (n, 2) at positions (n, 2) of the common frame, µm."""
        moved: NDArray[np.float64] = (
            np.sin(2 * pi * (xy_um @ self.frequency.T) / self.extent_um + self.phase) @ self.amplitude_um
        )
        return moved


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """How one slice lies on its slide: spatial = matrix · (p + warp(p)) for p in the common frame.

    Attributes
    ----------
    centre_um : (2,) float64
        Centre of the slice's window in the common frame; the window is the square of side `extent_um`.
    extent_um
        Side of the window.
    angle
        Rotation, radians, counter-clockwise.
    log_scale
        Log of the scale.
    matrix : (3, 3) float64
        Homogeneous, determinant above 0, µm to µm.
    warp
        Displacement before the matrix.
    offset : (2,) float64
        Where the spot lattice starts, in [0, 1) pitches.
    """

    centre_um: NDArray[np.float64]
    extent_um: float
    angle: float
    log_scale: float
    matrix: NDArray[np.float64]
    warp: Warp
    offset: NDArray[np.float64]

    @classmethod
    def draw(
        cls,
        *,
        seed: int,
        index: int,
        extent_um: float,
        overlap: float,
        rotation: float,
        shift: float,
        scale: float,
        warp: float,
    ) -> "Placement":
        """Draw the placement of slice `index`; the limits are those of `stscale.config.Simulate`."""
        rng = generator(seed, _PLACE, index)
        # always the same draws in the same order: changing one limit leaves the others' draws alone
        turn, log_scale = rng.uniform(-1, 1, 2)
        moved, offset = rng.uniform(-1, 1, 2), rng.uniform(0, 1, 2)
        size, heading = rng.uniform(0.3, 1, WAVES), rng.uniform(0, 2 * pi, WAVES)
        pace, course = rng.uniform(0.35, 0.75, WAVES), rng.uniform(0, 2 * pi, WAVES)
        phase = rng.uniform(0, 2 * pi, WAVES)
        size = warp * extent_um * size / size.sum()
        centre = extent_um * np.array([0.5 + index * (1 - overlap), 0.5])
        angle, factor = np.deg2rad(rotation * turn), np.exp(scale * log_scale)
        linear = factor * _rotation(float(angle))
        matrix = np.eye(3)
        matrix[:2, :2] = linear
        matrix[:2, 2] = extent_um * (0.5 + shift * moved) - linear @ centre
        return cls(
            centre_um=centre,
            extent_um=extent_um,
            angle=float(angle),
            log_scale=float(scale * log_scale),
            matrix=matrix,
            warp=Warp(
                amplitude_um=size[:, None] * np.stack([np.cos(heading), np.sin(heading)], axis=1),
                frequency=pace[:, None] * np.stack([np.cos(course), np.sin(course)], axis=1),
                phase=phase,
                extent_um=extent_um,
            ),
            offset=offset,
        )

    def lattice(self, tissue: Tissue, *, spots: int, pitch_um: float) -> NDArray[np.float64]:
        """Return the spots' positions in the common frame.

        Parameters
        ----------
        tissue
            Gives the outline.
        spots
            Number of spots; the deepest inside the outline are taken, so the edge gives way evenly.
        pitch_um
            Distance of neighbours on the hexagonal lattice, µm.

        Returns
        -------
        (spots, 2) float64
            µm; row by row as the lattice lies on the slide.
        """
        # the lattice belongs to the slide: level there, turned in the common frame
        rise = pitch_um * sqrt(3) / 2
        half = 0.65 * self.extent_um + 2 * pitch_um
        row = np.arange(-ceil(half / rise), ceil(half / rise) + 1)
        column = np.arange(-ceil(half / pitch_um), ceil(half / pitch_um) + 1)
        x = (column[None, :] + 0.5 * (row[:, None] % 2) + self.offset[0]) * pitch_um
        y = np.broadcast_to(((row + self.offset[1]) * rise)[:, None], x.shape)
        flat = np.stack([x.ravel(), y.ravel()], axis=1) @ _rotation(self.angle)  # q Rᵀᵀ = R⁻¹ q by rows
        depth = tissue.inside(flat / self.extent_um)
        kept = np.sort(np.argsort(-depth, kind="stable")[:spots])
        return flat[kept] + self.centre_um

    def spatial(self, true_um: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the slice's coordinates (n, 2), µm, of positions (n, 2) in the common frame, µm."""
        moved = true_um + self.warp.displacement(true_um)
        placed: NDArray[np.float64] = moved @ self.matrix[:2, :2].T + self.matrix[:2, 2]
        return placed


def extent_um(tissue: Tissue, *, spots: int, pitch_um: float) -> float:
    """Side of the square in which the outline holds `spots` lattice points, µm."""
    return sqrt(spots * pitch_um**2 * sqrt(3) / 2 / tissue.area())


def _rotation(angle: float) -> NDArray[np.float64]:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
