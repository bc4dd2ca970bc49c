"""New slices through a trained model: embedded, labelled and judged; nothing is trained, the run is only read."""

import json
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stscale import __version__
from stscale.analysis.mapping import HELD_OUT, NEIGHBORS, UNUSUAL, Bank, Verdict, judge, profile_correlation
from stscale.atomic import atomic_path
from stscale.device import pick_device
from stscale.downstream.finished import Finished
from stscale.errors import InputError
from stscale.slices import Collection, SliceStore, is_store, keys
from stscale.slices.projection import Panel, Projection
from stscale.slices.split import SUFFIX, slice_names
from stscale.telling import Observer

if TYPE_CHECKING:
    from stscale.analysis import Predictor
    from stscale.graphs import Graph
    from stscale.slices.features import FeatureStore

FORMAT = "stscale-mapped-1"
FILE = "mapped.json"
STORE = "mapped.zarr"
LATENTS = "latents.f32"
ROWS = 65_536
"""Latents copied at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedSlice:
    """What became of one slice.

    Attributes
    ----------
    name
        Of the slice.
    spots, left_out
        All its spots, and those without a count on the run's genes.
    genes_shared, genes_run
        Genes of the run that it has, of those the run reads.
    information
        Share of the variance of the run's scores that lies on the shared genes.
    moved
        Whether it was moved to the run's kinds of tissue (`stscale.slices.kinds`).
    domains
        Spots of each domain of the run.
    verdict
        Whether the run knows what the slice shows.
    seconds
        From reading it to its labels; bringing it into a slice store included.
    """

    name: str
    spots: int
    left_out: int
    genes_shared: int
    genes_run: int
    information: float
    moved: bool
    domains: dict[str, int]
    verdict: Verdict
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Embedded:
    """Spots of one slice, in the order of its feature store."""

    rows: NDArray[np.int64]  # of the output, inside the slice
    labels: NDArray[np.int32]
    confidence: NDArray[np.float64]
    told: MappedSlice


class Mapping:
    """Maps slices with one run.

    Parameters
    ----------
    run
        The run.
    restat
        Measure the normalisation statistics of the network anew on each slice, instead of taking the run's.
    seed
        Of the bank of latents.
    observer
        Called with each event.
    split
        Column that tells slices of an input apart; None: each is one.
    """

    def __init__(self, run: Finished, *, restat: bool, seed: int, observer: Observer, split: str | None = None) -> None:
        from stscale.analysis.predictor_file import NAME, load_predictor

        check_mappable(run)
        if restat and not run.config.trains:
            raise InputError(
                f"{run.path} was made by method {run.config.method!r}, which normalises nothing: leave out --restat"
            )
        self.run, self.restat, self.observer = run, restat, observer
        self.projection = Projection(run.features, run.config.preprocess)
        self.predictor: Predictor = load_predictor(run.path / NAME)
        self.ingesting = replace(run.config.ingesting, split=split)
        self.device = pick_device(run.config.device)
        self.bank = Bank.build(run.latents(), run.features.slice(), tile=run.config.sample.tile, seed=seed)

    def go(self, paths: list[Path], out: Path) -> tuple[MappedSlice, ...]:
        """Map slices into the folder `out`, which appears whole or not at all.

        Raises
        ------
        InputError
            When a slice cannot be mapped, two have one name, or `out` holds something else.
        """
        check_out(out, self.run.path, paths)
        with atomic_path(out) as part:
            part.mkdir()
            scratch = part / "scratch"
            done, stores = [], []
            names = slice_names(paths, self.ingesting)
            for number, (path, held) in enumerate(zip(paths, names, strict=True)):
                start = time.perf_counter()
                self.observer({"event": "stage", "stage": f"map {path.name}", "state": "start"})
                for store in self._stores(path, held, scratch / f"slices-{number}"):
                    stores.append(store)
                    done.append(self._one(store, scratch / "work", scratch / LATENTS, start))
                    shutil.rmtree(scratch / "work", ignore_errors=True)
                    start = time.perf_counter()
            self._write(part, Collection.onto(stores, self.projection.vocabulary), done, scratch / LATENTS)
            shutil.rmtree(scratch, ignore_errors=True)
        return tuple(d.told for d in done)

    def _stores(self, path: Path, names: list[str], folder: Path) -> list[SliceStore]:
        from stscale.slices.ingest import bring

        made = (path,) if is_store(path) else tuple(folder / f"{name}{SUFFIX}" for name in names)
        return [SliceStore.open(store) for store in bring(self.ingesting, (path, made))]

    def _one(self, store: SliceStore, scratch: Path, latents: Path, start: float) -> _Embedded:
        panel = self.projection.panel(store)
        features = self.projection.features(store, panel, scratch / "features.zarr")
        if self.restat and features.n < 2:
            raise InputError(f"slice {store.name!r} has one spot with counts; statistics need more: leave out --restat")
        z = self._embedded(features, scratch)
        labels = self._labels(features, z, scratch)
        distance = self.bank.distance(z)
        with latents.open("ab") as file:  # of all slices, one after the other
            for lo in range(0, len(z), ROWS):
                z[lo : lo + ROWS].tofile(file)
        return _Embedded(
            rows=store.input_row()[features.row()],
            labels=labels,
            confidence=self.bank.confidence(distance),
            told=MappedSlice(
                name=store.name,
                spots=store.n,
                left_out=store.n - features.n,
                genes_shared=int(panel.shared.sum()),
                genes_run=len(panel.shared),
                information=panel.information,
                moved=features.kinds().moved,
                domains={str(k): int(count) for k, count in enumerate(np.bincount(labels)) if count},
                verdict=judge(self.bank, z, distance, self._profile(features, panel)),
                seconds=time.perf_counter() - start,
            ),
        )

    def _labels(self, features: "FeatureStore", z: NDArray[np.float32], scratch: Path) -> NDArray[np.int32]:
        """Label as the run did, neighbours heard where they were heard there."""
        from stscale.analysis import smooth_labels
        from stscale.analysis.beside import beside_components
        from stscale.analysis.potts import spatial_responsibilities
        from stscale.analysis.scale import Wider

        c = self.run.config.domains
        graph = self._spatial(features)
        told = self.run.manifest["stages"]["domains"].get("wider")
        wider = Wider(**told) if told else None
        seen = beside_components(self.run.config, features, graph, z, scratch / "domains", wider=wider)
        if c.spatial and c.method == "gmm":
            score = self.predictor.log_density(seen)
            shares = spatial_responsibilities(score, graph.indptr, graph.indices, strength=c.spatial)
            labels = self.predictor.order[shares.argmax(axis=1)]
        else:
            labels = self.predictor.predict(seen)
        return smooth_labels(labels, graph.indptr, graph.indices, c.smooth_rounds) if c.smooth_rounds else labels

    def _profile(self, features: "FeatureStore", panel: Panel) -> float:
        known = self.run.features
        return profile_correlation(features.captured_mean()[0], known.captured_mean(), panel.shared, known.mask())

    def _spatial(self, features: "FeatureStore") -> "Graph":
        from stscale.graphs import spatial_graph

        return spatial_graph(features.xy(), features.offsets(), self.run.config.graph)

    def _embedded(self, features: "FeatureStore", scratch: Path) -> NDArray[np.float32]:
        """Embed one slice as the run was embedded, all neighbours, hop by hop."""
        from stscale.graphs import view_graphs
        from stscale.models import METHODS
        from stscale.training import embed
        from stscale.training.job import network_inputs
        from stscale.training.trained import trained

        c = self.run.config
        if METHODS[c.method].views:
            graphs = list(view_graphs(features.xy, features.pca, c.views, c.seed, (0, features.n)))
        else:
            graphs = [self._spatial(features)]
        inputs = network_inputs(c, features, graphs, scratch / "inputs", run=self.run.path)
        method = trained(self.run.path, c, self.run.features, inputs.width, self.device)
        return embed(method, inputs, graphs, scratch / "layers", device=self.device, remeasure=self.restat).array

    def _write(self, out: Path, collection: Collection, done: list[_Embedded], latents: Path) -> None:
        from stscale import config as options
        from stscale.output import write_rows

        uns: dict[str, Any] = {
            "version": __version__,
            "config": options.dump(self.run.config, meanings=False),
            "restat": self.restat,
        }
        write_rows(
            out / STORE,
            collection,
            np.concatenate([int(collection.offsets[i]) + d.rows for i, d in enumerate(done)]),
            np.memmap(latents, dtype=np.float32, mode="r").reshape(sum(len(d.rows) for d in done), -1),
            np.concatenate([d.labels for d in done]),
            [str(k) for k in range(len(self.predictor.order))],
            uns,
            columns={keys.CONFIDENCE: np.concatenate([d.confidence for d in done])},
        )
        told = {
            "format": FORMAT,
            "stscale": __version__,
            "run": self.run.manifest["stages"]["write"]["digest"],
            "restat": self.restat,
            "calibration": {
                "bank": len(self.bank.latents),
                "held_out": len(self.bank.usual),
                "held_out_at_most": HELD_OUT,
                "neighbors": NEIGHBORS,
                "other_slices_only": self.bank.between_slices,
                "median_distance": float(np.median(self.bank.usual)),
                "unusual_distance": float(np.quantile(self.bank.usual, 1 - UNUSUAL)),
            },
            "slices": [asdict(d.told) for d in done],
        }
        (out / FILE).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def check_mappable(run: Finished) -> None:
    """Make sure that the domains and inputs of a run mean something on a new slice.

    Raises
    ------
    InputError
        Naming the option that a run to map with needs.
    """
    if run.config.domains.method == "assignment":
        raise InputError(
            f"the domains of {run.path} are the shares of its own spots in learned prototypes: a new slice has "
            "none of them; integrate with domains.method = 'gmm'"
        )
    if run.config.domains.per_slice:
        raise InputError(
            f"the domains of {run.path} were found in each slice alone: a new slice has none of them; integrate "
            "with domains.per_slice = false"
        )


def check_out(out: Path, run: Path, paths: list[Path]) -> None:
    """Refuse a folder that a mapping would take the place of.

    Parameters
    ----------
    out
        Where the mapping goes.
    run
        The run folder.
    paths
        The new slices.

    Raises
    ------
    InputError
        When it is a file, holds the run or a slice, or anything but an earlier mapping.
    """
    if out.is_file():
        raise InputError(f"{out} is a file; give a folder with -o")
    here = out.resolve()
    if any(here == p.resolve() or here in p.resolve().parents for p in (run, *paths)):
        raise InputError(f"{out} holds the run or a slice, which it would replace; give another folder with -o")
    if out.is_dir() and any(out.iterdir()) and not (out / FILE).is_file():
        raise InputError(f"{out} is not empty and holds no earlier mapping; give another folder with -o")
