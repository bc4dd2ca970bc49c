"""An aligned run as the report draws it; pairs are read one at a time."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stscale.alignment import Alignment, RunSlices, plan_path, read_alignment
from stscale.report.contents import Spots
from stscale.slices import keys
from stscale.transport import Plan

Clouds = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LaidPair:
    """One pair; n source, m target spots, those with an embedding.

    Attributes
    ----------
    source, target
        Names.
    before
        (n, 2) and (m, 2) positions as given, in the unit of the alignment.
    after
        The same in the common frame.
    plan
        Correspondences.
    """

    source: str
    target: str
    before: Clouds
    after: Clouds
    plan: Plan

    def residuals(self) -> NDArray[np.float64]:
        """Return the distance (n,) of each source spot to its counterparts' mean position; NaN without any."""
        apart: NDArray[np.float64] = np.linalg.norm(self.after[0] - self.plan.pull(self.after[1]), axis=1)
        return apart


@dataclass(frozen=True, slots=True, kw_only=True)
class Laid:
    """An aligned run.

    Attributes
    ----------
    alignment
        What was found.
    slices
        Where the spots lie.
    spots
        Their domains.
    """

    alignment: Alignment
    slices: RunSlices
    spots: Spots

    def aligned(self, i: int) -> NDArray[np.float64]:
        """Return the positions (n_i, 2) of slice `i` in the common frame."""
        lo, hi = self.slices.offsets[i], self.slices.offsets[i + 1]
        return np.asarray(self.slices.root[f"obsm/{keys.SPATIAL_ALIGNED}"][int(lo) : int(hi)], np.float64)

    def pair(self, number: int) -> LaidPair:
        """Read a pair."""
        told, names = self.alignment.pairs[number], self.slices.names
        before, after = [], []
        for i in (names.index(told.source), names.index(told.target)):
            held = self.slices.fit_rows(i) - self.slices.offsets[i]
            before.append(self.slices.given(i)[held] * (self.alignment.um_per_unit[i] or 1.0))
            after.append(self.aligned(i)[held])
        return LaidPair(
            source=told.source,
            target=told.target,
            before=(before[0], before[1]),
            after=(after[0], after[1]),
            plan=Plan.load(plan_path(self.slices.path, told)),
        )


def read_laid(run: Path, spots: Spots) -> Laid | None:
    """Read the alignment of a run, None when it has none.

    Raises
    ------
    InputError
        When what is there is damaged.
    """
    found = read_alignment(run)
    return None if found is None else Laid(alignment=found, slices=RunSlices.open(run), spots=spots)
