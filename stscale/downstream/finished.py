"""A finished run, opened to be used."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stscale.config import Run, load
from stscale.errors import InputError
from stscale.rundir import read_manifest
from stscale.slices.features import FeatureStore


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Finished:
    """What a run left in its folder.

    Attributes
    ----------
    path
        The run folder.
    config
        Its options.
    manifest
        Its manifest.
    features
        Its feature store.
    """

    path: Path
    config: Run
    manifest: dict[str, Any]
    features: FeatureStore

    @classmethod
    def open(cls, run: str | Path) -> "Finished":
        """Open a run.

        Raises
        ------
        InputError
            If the folder holds no run, or one that is not finished.
        """
        run = Path(run)
        manifest = read_manifest(run)
        if "write" not in manifest["stages"] or not (run / "integrated.zarr").is_dir():
            raise InputError(f"{run} is not finished: it has no integrated.zarr yet; run stscale integrate again")
        return cls(
            path=run,
            config=load(run / "config.toml"),
            manifest=manifest,
            features=FeatureStore.open(run / "features.zarr"),
        )

    def latents(self) -> NDArray[np.float32]:
        """Latents of the training spots, (n, d) float32 in the order of the feature store, mapped from disk.

        Raises
        ------
        InputError
            If they are gone.
        """
        path = self.path / "latents.npy"
        if not path.exists():
            raise InputError(f"{path} is missing; run stscale integrate again")
        return np.load(path, mmap_mode="r")
