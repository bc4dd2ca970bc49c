"""Latents beside the smoothed components that they came from: what domains are found in.

A network that is trained for a few hundred steps keeps most of what separates domains and loses some of it, other parts
with each seed; components averaged over neighbours lose what only training removes, such as differences between
patients. The mixture sees what either of them holds; at three times the variance of the latents the components lead,
and seeds of the training show less. Components averaged over wider surroundings join them where these predict spots
better (`scale`): single cells show their domain by what lives around them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stscale.memory import let_go

if TYPE_CHECKING:
    from stscale.analysis.scale import Wider
    from stscale.config import Run
    from stscale.graphs import Graph
    from stscale.slices.features import FeatureStore


class Beside:
    """Rows of matrices of the same spots, side by side; nothing is copied but the rows asked for.

    Parameters
    ----------
    parts
        (n, d_i) float32 matrices, usually mapped files.
    variances
        Total variance that each part has where it is read (`Reduction`).
    """

    def __init__(self, parts: tuple[NDArray[np.floating], ...], variances: tuple[float, ...]) -> None:
        self.parts = parts
        self.variances = variances

    @property
    def widths(self) -> tuple[int, ...]:
        """Columns d_i of each part."""
        return tuple(part.shape[1] for part in self.parts)

    @property
    def shape(self) -> tuple[int, int]:
        """(n, Σ d_i)."""
        return len(self.parts[0]), sum(self.widths)

    def __len__(self) -> int:
        return len(self.parts[0])

    def __getitem__(self, rows: slice | NDArray[np.integer]) -> NDArray[np.floating]:
        ends = np.cumsum((0, *self.widths))
        length = len(range(len(self))[rows]) if isinstance(rows, slice) else len(rows)
        found = np.empty((length, ends[-1]), dtype=np.result_type(*self.parts))
        for part, lo, hi in zip(self.parts, ends, ends[1:], strict=False):
            found[:, lo:hi] = part[rows]
            let_go(part)  # before the next: pages of one part at a time
        return found

    def take(self, rows: NDArray[np.integer]) -> Beside:
        """Return some rows as matrices of their own."""
        return Beside(tuple(np.asarray(part[rows]) for part in self.parts), self.variances)


def beside_components(
    config: Run,
    features: FeatureStore,
    graph: Graph,
    latents: NDArray[np.floating],
    folder: Path,
    *,
    wider: Wider | None,
) -> Beside:
    """Put latents beside components averaged over the spatial graph, as `domains.smoothed`, `smooth.rounds` say.

    Parameters
    ----------
    config
        Of the run.
    features, graph
        Components and spatial graph of the spots.
    latents
        (n, d).
    folder
        Where the averaged components go; the caller removes it.
    wider
        What joins them of wider surroundings, see `Scale.wider`. Latents that are looked at alone stay so.
    """
    from stscale.training.inputs import pca_inputs

    weight = config.domains.smoothed if config.trains else 1.0
    # an assignment is the network's own
    if not weight or not features.p or config.domains.method == "assignment":
        return Beside((latents,), (1.0,))
    parts, variances = [latents], [1.0]
    if config.trains:  # the latents of a method that trains nothing are these components already
        parts.append(pca_inputs(features, graph, folder, smooth=config.smooth.rounds).array)
        variances.append(weight)
    if wider is not None:
        parts.append(pca_inputs(features, graph, folder / "wider", smooth=wider.rounds).array)
        variances.append(weight * wider.weight)
    return Beside(tuple(parts), tuple(variances))
