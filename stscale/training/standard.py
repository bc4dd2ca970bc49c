"""Mean and scale of what a two-view network reads: measured on a run, kept with it, used again on new slices."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stscale.atomic import atomic_path
from stscale.errors import InputError
from stscale.training.inputs import DenseInputs

NAME: Final = "standard.npz"
"""Of a run folder, and of the scratch folder it is made in."""

ROWS = 8192
"""Read and written at a time."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Standard:
    """Brings column j to (x − mean_j) · scale_j.

    Attributes
    ----------
    mean, scale
        (g,) float64. A column that was constant has mean its value, so that it becomes 0.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def measure(cls, inputs: DenseInputs) -> "Standard":
        """Find what brings each column to mean 0 and variance 1 over all rows, block by block."""
        mean = sum(inputs.rows(rows).sum(axis=0, dtype=np.float64) for rows in _blocks(inputs)) / inputs.n
        square = sum(np.square(inputs.rows(rows) - mean).sum(axis=0) for rows in _blocks(inputs)) / inputs.n
        return cls(mean=np.asarray(mean), scale=np.asarray(1.0 / np.sqrt(np.maximum(square, 1e-12))))

    def apply(self, inputs: DenseInputs) -> None:
        """Change rows (n, g) in place, block by block."""
        for rows in _blocks(inputs):
            inputs.write(int(rows[0]), ((inputs.rows(rows) - self.mean) * self.scale).astype(np.float32))

    def save(self, path: Path) -> None:
        """Write both, whole or not at all."""
        with atomic_path(path) as part, part.open("wb") as file:
            np.savez(file, mean=self.mean, scale=self.scale)

    @classmethod
    def load(cls, path: Path) -> "Standard":
        """Read what `save` wrote.

        Raises
        ------
        InputError
            If it is missing or damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                return cls(mean=file["mean"], scale=file["scale"])
        except FileNotFoundError:
            raise InputError(
                f"{path} is missing: the run did not keep the scale of what its network reads; run stscale integrate "
                "with --fresh"
            ) from None
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise InputError(
                f"{path} is damaged ({type(error).__name__}); run stscale integrate with --fresh"
            ) from error


def _blocks(inputs: DenseInputs) -> list[NDArray[np.int64]]:
    return [np.arange(lo, min(lo + ROWS, inputs.n)) for lo in range(0, inputs.n, ROWS)]
