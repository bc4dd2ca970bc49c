"""What the commands of the Python API return."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import anndata

    from stscale.alignment import Alignment


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A finished run.

    Attributes
    ----------
    path
        The run folder.
    n, left_out
        Spots in the output, and how many of them took no part in the fit (no count on the used genes).
    slices
        Names in the order given.
    k
        Number of domains.
    k_range
        Where K was estimated: the numbers that resampled tissue gives; else None.
    """

    path: Path
    n: int
    left_out: int
    slices: tuple[str, ...]
    k: int
    k_range: tuple[int, int] | None = None

    def quality(self) -> dict[str, Any] | None:
        """Read `quality.json`, the label-free card; None where it was not asked for (`report.quality`)."""
        path = self.path / "quality.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def alignment(self) -> "Alignment | None":
        """Read how the slices lie on each other; None where the run is not aligned."""
        from stscale.alignment import read_alignment

        return read_alignment(self.path)

    def adata(self) -> "anndata.AnnData":
        """Read `integrated.zarr`."""
        import anndata

        return anndata.read_zarr(self.path / "integrated.zarr")


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignResult:
    """An aligned run.

    Attributes
    ----------
    path
        The run folder.
    alignment
        Transforms, pairs and what is to be said about them.
    """

    path: Path
    alignment: "Alignment"

    def adata(self) -> "anndata.AnnData":
        """Read `integrated.zarr`, with the aligned coordinates in `obsm["spatial_aligned"]`."""
        import anndata

        return anndata.read_zarr(self.path / "integrated.zarr")
