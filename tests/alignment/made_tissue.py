"""A tissue with known latents everywhere, to be cut, moved and warped."""

import numpy as np


def latents(xy: np.ndarray, rng: np.random.Generator, noise: float = 0.05, d: int = 8) -> np.ndarray:
    """Smooth channels of the true position, mixed into d columns by a fixed matrix, with noise per spot."""
    x, y = xy.T / 40
    field = np.c_[np.tanh(3 * (y - 0.3)), np.tanh(3 * (y - 0.7)), np.sin(5 * x + y), np.cos(4 * x - 2 * y), x * y]
    mix = np.random.default_rng(7).normal(size=(5, d))
    return field @ mix + noise * rng.normal(size=(len(xy), d))


def grid(side: int = 40, *, width: int | None = None) -> np.ndarray:
    """Hexagonal grid of pitch 1."""
    rows = [(column + 0.5 * (row % 2), row * np.sqrt(3) / 2) for row in range(side) for column in range(width or side)]
    return np.array(rows)


def turned(xy: np.ndarray, degrees: float, shift: tuple[float, float]) -> np.ndarray:
    """Turn about the centre and shift."""
    a = np.deg2rad(degrees)
    turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    return (xy - xy.mean(axis=0)) @ turn.T + xy.mean(axis=0) + np.array(shift)
