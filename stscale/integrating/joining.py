"""One graph over aligned slices: a spot is joined to those of the slices beside its own that lie on it.

Slices are laid on each other by what is known before any training: components averaged over neighbours, which align as
trained latents do. The graph then serves as that of a single slice: for the embedding, its training, and the say that
neighbours have in domains. Counting noise is averaged over more spots of the same tissue than one slice has.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stscale.config import Run
from stscale.integrating.learn import Learning
from stscale.options import digest

if TYPE_CHECKING:
    from stscale.alignment import PairList, SliceView
    from stscale.graphs import Graph
    from stscale.slices.features import FeatureStore
    from stscale.training.inputs import DenseInputs

LEFT_OUT = ("pairs", "reference", "z", "spacing")
"""Options of [align] that links do not depend on, or only by the pairs they name; nor do they on any `refine…`."""
FOLDER = "joins"
"""Where the links of the pairs that are done wait for the others."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Joined:
    """Links of one pair of slices.

    Attributes
    ----------
    source, target
        Names.
    rotation_degrees
        Of the source.
    credible
        Whether the slices seem to have tissue in common.
    notes
        Of the alignment.
    ends
        (2, m) int64, rows of the source's and of the target's spots among all spots; none where the pair must not join.
    """

    source: str
    target: str
    rotation_degrees: float
    credible: bool
    notes: tuple[str, ...]
    ends: NDArray[np.int64]

    def save(self, path: Path) -> None:
        """Write to one .npz, whole or not at all."""
        from stscale.atomic import atomic_path

        path.parent.mkdir(exist_ok=True)
        told = {k: getattr(self, k) for k in ("source", "target", "rotation_degrees", "credible", "notes")}
        with atomic_path(path) as part, part.open("wb") as file:
            np.savez(file, ends=self.ends, told=np.array(json.dumps(told)))

    @classmethod
    def load(cls, path: Path) -> "Joined":
        """Read what `save` wrote."""
        with np.load(path) as file:
            told = json.loads(str(file["told"]))
            return cls(**{**told, "notes": tuple(told["notes"])}, ends=file["ends"])


class Untrained:
    """Slices as alignment sees them before training: places, and components averaged over neighbours.

    Parameters
    ----------
    features, graph
        Of all spots.
    um_per_unit
        Factor of each slice's coordinates to µm; all lengths stay as given unless every slice tells its own.
    rounds
        Of the averaging.
    folder
        Where the averages go; the caller removes it.
    """

    def __init__(
        self,
        features: "FeatureStore",
        graph: "Graph",
        um_per_unit: "list[float | None]",
        *,
        rounds: int,
        folder: Path,
    ) -> None:
        self._features, self._graph = features, graph
        told = [u for u in um_per_unit if u is not None]
        self._units = told if len(told) == features.n_slices else [1.0] * features.n_slices
        self._rounds, self._folder = rounds, folder
        self._smoothed: DenseInputs | None = None
        self._views: dict[int, SliceView] = {}

    def first(self, i: int) -> int:
        """Return the first row of slice `i` among all spots."""
        return int(self._features.offsets()[i])

    def pair(self, source: int, target: int) -> "tuple[SliceView, SliceView]":
        """Return two slices; those of the pair before are still there."""
        self._views = {i: self._views.get(i) or self._view(i) for i in (source, target)}
        return self._views[source], self._views[target]

    def _view(self, i: int) -> "SliceView":
        from stscale.alignment import SliceView
        from stscale.training.inputs import pca_inputs

        if self._smoothed is None:
            self._smoothed = pca_inputs(self._features, self._graph, self._folder, smooth=self._rounds)
        lo, hi = self._features.offsets()[i : i + 2].tolist()
        z = self._smoothed.rows(np.arange(lo, hi))
        return SliceView.build(self._features.slice_names[i], self._features.xy(lo, hi) * self._units[i], z)


def joined_pair(slices: Untrained, source: int, target: int, config: Run) -> Joined:
    """Lay one slice on another and find its links (`stscale.alignment.links`).

    Parameters
    ----------
    slices
        All slices.
    source, target
        Numbers of the two.
    config
        `graph.across`, `align` and the seed are read.

    Raises
    ------
    InputError
        Slices that cannot be laid on each other: coordinates in three dimensions, fewer than 20 spots, no overlap.
    """
    from stscale.alignment import align_pair, joins, links

    a, b = slices.pair(source, target)
    found = align_pair(a, b, config.align, seed=config.seed)
    ends = np.empty((2, 0), np.int64)
    if joins(found):
        one, other = links(found, a, b, config.graph.across)
        ends = np.stack([one + slices.first(source), other + slices.first(target)])
    notes = found.notes
    if not joins(found):
        notes += (f"{a.name!r} and {b.name!r} are not joined: the domains see each by itself",)
    return Joined(
        source=a.name,
        target=b.name,
        rotation_degrees=found.transform.rotation_degrees,
        credible=found.credible,
        notes=notes,
        ends=ends,
    )


class Joining(Learning):
    """The stage that joins the slices of an integration."""

    def join(self, features: "FeatureStore", graph: "Graph") -> "Graph":
        """Join aligned slices, pair by pair; without `graph.across` the graph stays as it is.

        Raises
        ------
        InputError
            As `joined_pair`.
        """
        from stscale.alignment import PairList
        from stscale.graphs import load, with_edges

        c = self.config
        if not c.graph.across:
            self.run.forget("join")
            return graph
        pairs = PairList.build(features.slice_names, c.align.pairs, reference=c.align.reference)
        told = {k: v for k, v in asdict(c.align).items() if k not in LEFT_OUT and not k.startswith("refine")}
        now = self._chain("join", c.graph.across, told, pairs.pairs, c.seed, c.smooth.rounds)
        path = self.run.file(c.graph.file)
        if self.run.finished("join", now, path):
            self.skip("join")
            return load(path)
        self.observer({"event": "stage", "stage": "join", "state": "start"})
        with self.run.stage("join", now) as found:
            done = list(self._joined(features, graph, pairs, now))
            ends = np.concatenate([pair.ends for pair in done], axis=1)
            joined = with_edges(graph, *ends)
            joined.save(path)
            shutil.rmtree(self.run.file(FOLDER), ignore_errors=True)
            shutil.rmtree(self.run.file("scratch"), ignore_errors=True)
            found.update(
                edges=joined.n_edges // 2,
                unjoined=features.n - len(np.unique(ends)),
                notes=[note for pair in done for note in pair.notes],
            )
        for note in self.run.manifest["stages"]["join"]["notes"]:
            self.tell("note", text=note)
        return joined

    def _joined(self, features: "FeatureStore", graph: "Graph", pairs: "PairList", now: str) -> Iterator[Joined]:
        """Do what is not done yet, each pair saved as soon as it is done."""
        told = self.run.manifest["stages"]["features"]["um_per_unit"]
        units = [told[name] for name in features.slice_names]
        scratch = self.run.file("scratch", "join")
        slices = Untrained(features, graph, units, rounds=self.config.smooth.rounds, folder=scratch)
        for number, (source, target) in enumerate(pairs.pairs, start=1):
            path = self.run.file(FOLDER, f"{digest([now, source, target])}.npz")
            state = "reused" if path.exists() else "done"
            if state == "done":
                joined_pair(slices, source, target, self.config).save(path)
            pair = Joined.load(path)
            self.tell(
                "pair",
                number=number,
                total=len(pairs.pairs),
                source=pair.source,
                target=pair.target,
                state=state,
                rotation_degrees=pair.rotation_degrees,
                credible=pair.credible,
            )
            yield pair
