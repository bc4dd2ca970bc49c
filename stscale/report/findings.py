"""What the report computes itself, from what the run folder keeps of the fit."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stscale.report.card import read_card
from stscale.report.contents import Contents
from stscale.report.fitted import Fitted, read_fitted
from stscale.report.markers import Markers, find_markers
from stscale.report.mixing import Mixing, measure_mixing


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Mixing, markers and the label-free card; each None where it is not defined.

    Attributes
    ----------
    fitted
        What they were computed from; None when the run folder no longer holds it.
    mixing
        Of two slices or more.
    markers
        Of two domains or more.
    card
        `quality.json`.
    """

    fitted: Fitted | None
    mixing: Mixing | None
    markers: Markers | None
    card: dict[str, Any] | None = None

    def remarks(self) -> list[str]:
        """Return what a reader should know."""
        if self.fitted is not None:
            return []
        return [
            "The run folder no longer holds all of features.zarr, graph.npz, latents.npy and domains.npy: the "
            "mixing of slices and marker genes could not be computed."
        ]


def find(run: Path, contents: Contents) -> Findings:
    """Compute the findings of a finished run."""
    fitted = read_fitted(run)
    if fitted is None:
        return Findings(fitted=None, mixing=None, markers=None, card=read_card(run))
    seed = int(contents.option("run", "seed") or 0)
    # runs written before the option existed centred over all slices
    per_slice = contents.option("preprocess", "center") in ("kinds", "slice")
    return Findings(
        fitted=fitted,
        mixing=measure_mixing(fitted, centred_per_slice=per_slice, seed=seed),
        # runs written before the option existed looked for them
        markers=None if contents.option("report", "markers") is False else find_markers(fitted, seed=seed),
        card=read_card(run),
    )
