"""The protocol sets of domain quality, real and simulated, prepared once: components, graph, annotation."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from benchmarks.data import SETS, UNLABELLED, TissueSet, slice_files

if TYPE_CHECKING:
    from anndata import AnnData

    from stscale.config import Graph as GraphOptions
    from stscale.config import Preprocess
    from stscale.graphs import Graph
    from stscale.slices import FeatureStore, SliceStore

SLICES = 4
SPOTS = 1500
GENES = 600
TISSUE_SEED = 11
STRENGTHS = {"none": 0.0, "mild": 0.3, "strong": 1.0}
"""Standard deviation of the natural-log effect of a slice on a gene."""

# what is common to them: few counts and weak markers, so that no method finds everything
_NOISE: dict[str, Any] = {"library": 400.0, "marker_lfc": 0.6}
SHAPES: dict[str, dict[str, Any]] = {
    "layers": {"kind": "layers", "domains": 7},
    "patches": {"kind": "patches", "domains": 6},
    "rare": {"kind": "mixed", "domains": 8},
    "gradients": {"kind": "layers", "domains": 7, "gradient": 0.2},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tissue:
    """Slices that are integrated together, with the annotation that scores them.

    Attributes
    ----------
    name
        Of the set.
    files
        The slices.
    k
        True number of domains.
    unlabelled
        Annotations that count as missing.
    """

    name: str
    files: tuple[str, ...]
    k: int
    unlabelled: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A tissue as training sees it.

    Attributes
    ----------
    tissue
        Which.
    features, graph
        The feature store and the graph that embedding and domains see; `graph_path` is the file of the latter.
    graph_path
        Where the graph lies.
    plane
        The spatial graph of each slice by itself; another one than `graph` where slices are joined.
    labels
        (n,) object, the annotation of the rows of the feature store; None where there is none.
    """

    tissue: Tissue
    features: "FeatureStore"
    graph: "Graph"
    graph_path: Path
    plane: "Graph"
    labels: NDArray[np.object_]


def names() -> list[str]:
    """Return the sets: real ones joint, every cortex slice alone, simulated ones by shape and batch effect."""
    alone = [f"dlpfc-{Path(f).stem}" for f in slice_files("dlpfc")]
    return [*SETS, *alone, *(f"{shape}-{strength}" for shape in SHAPES for strength in STRENGTHS)]


def tissue(name: str, folder: Path) -> Tissue:
    """Return a set, simulating its slices under `folder` when they are not there yet."""
    first, _, rest = name.partition("-")
    if first in SHAPES:
        shape = SHAPES[first]
        return Tissue(name=name, files=tuple(_simulated(folder / name, shape, STRENGTHS[rest])), k=shape["domains"])
    real: TissueSet = (SETS | UNLABELLED)[first]
    files = [f for f in slice_files(first) if not rest or Path(f).stem == rest]
    return Tissue(name=name, files=tuple(files), k=real.k, unlabelled=real.unlabelled)


def _simulated(out: Path, shape: dict[str, Any], batch_effect: float) -> list[str]:
    from stscale.config import Simulate
    from stscale.slices.simulate import TRUTH, simulate

    config = Simulate(batch_effect=batch_effect, **_NOISE, **shape)
    made = out / TRUTH
    if not made.exists() or json.loads(made.read_text(encoding="utf-8"))["config"] != _plain(config):
        simulate(out, slices=SLICES, spots=SPOTS, genes=GENES, seed=TISSUE_SEED, config=config)
    return sorted(str(p) for p in out.glob("*.zarr"))


def annotated(store: "SliceStore") -> "AnnData":
    """Return a slice with its annotation and places, in memory."""
    from anndata import AnnData

    made = AnnData(store.counts(0, store.n).astype(np.float32), obs=store.obs()[["domain"]])
    made.var_names = store.genes()
    made.obsm["spatial"] = store.coordinates()
    return made


def read(source: Path) -> "AnnData":
    """Return a slice, a store or a file, in memory."""
    import anndata as ad

    from stscale.slices import SliceStore, is_store

    return annotated(SliceStore.open(source)) if is_store(source) else ad.read_h5ad(source)


def altered(whole: Tissue, place: Path, change: "Callable[[AnnData, int], AnnData]") -> Tissue:
    """Return a set whose slices are `change` of slice and number, written into `place` once and named after it."""
    files = [place / f"{Path(source).stem}.h5ad" for source in whole.files]
    if not all(file.exists() for file in files):
        place.mkdir(parents=True, exist_ok=True)
        for i, (source, file) in enumerate(zip(whole.files, files, strict=True)):
            change(read(Path(source)), i).write_h5ad(file)
    return replace(whole, name=place.name, files=tuple(map(str, files)))


def stored(files: Sequence[str], folder: Path | None, *, recover: bool = True) -> "list[SliceStore]":
    """Open slices; what is no slice store yet becomes one in `folder`, or beside itself, once.

    Without `recover` normalised values stay what they are.
    """
    from stscale.config import Ingest
    from stscale.slices import SliceStore, ingest, is_store

    stores = []
    for source in map(Path, files):
        end = "" if recover else "-as-given"
        store = source if is_store(source) else (folder or source.parent) / f"{source.stem}{end}.zarr"
        if not is_store(store):
            ingest(source, store, config=Ingest(recover=recover), name=source.stem)
        stores.append(SliceStore.open(store))
    return stores


def _plain(config: Any) -> dict[str, Any]:
    from dataclasses import asdict

    values: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return values


def prepared(
    name: str,
    folder: Path,
    preprocess: "Preprocess",
    *,
    graph: "GraphOptions | None" = None,
    true_effects: bool = False,
    given: Tissue | None = None,
    seed: int = 0,
) -> Prepared:
    """Ingest, choose genes, compute components and the graph; what is there already is opened.

    Parameters
    ----------
    name
        One of `names`, or of `given`.
    folder
        Where slices, features and graphs of all sets lie.
    preprocess
        Options of the features; each choice has a folder of its own.
    graph
        Options of the graph, of which `across` alone counts; default: none is joined.
    true_effects
        Bring genes to one height by the effects they were simulated with, not by what slices captured of them.
    given
        A set that is none of the protocol's.
    seed
        Of the components, and of the alignment of slices that are joined.
    """
    from dataclasses import asdict

    from stscale.config import Graph
    from stscale.graphs import load, spatial_graph
    from stscale.options import digest
    from stscale.slices import Collection, FeatureStore, build_features

    found = given or tissue(name, folder)
    place = None if given else folder / name.partition("-")[0]
    slices = stored(found.files, place, recover=not preprocess.lognormalized)
    # a slice made anew is another input: its modification is part of the place
    stamps = [(s.path / "zarr.json").stat().st_mtime_ns for s in slices]
    choices = [asdict(preprocess), stamps, seed, *([True] if true_effects else [])]
    path = folder / "features" / name / digest(choices)
    features_path, graph_path = path / "features.zarr", path / "graph.npz"
    if not graph_path.exists():
        path.mkdir(parents=True, exist_ok=True)
        collection = Collection.build(slices, genes=preprocess.genes, min_shared=preprocess.min_shared_genes)
        with _given_effects(slices) if true_effects else nullcontext():
            features = build_features(collection, features_path, config=preprocess, seed=seed, workers=1)
        spatial_graph(features.xy(), features.offsets(), Graph()).save(graph_path)
    features = FeatureStore.open(features_path)
    labels = np.full(features.n, None, dtype=object)
    group, row = features.slice(), features.row()
    for i, store in enumerate(slices):
        obs = store.obs()
        if "domain" in obs:
            labels[group == i] = obs["domain"].astype(object).to_numpy()[row[group == i]]
    labels[np.isin(labels.astype(str), [*found.unlabelled, "nan", "None"])] = None
    plane = seen = load(graph_path)
    if graph is not None and graph.across:
        graph_path = path / f"joined-{graph.across}.npz"
        if not graph_path.exists():
            _joined(features, plane, graph, seed).save(graph_path)
        seen = load(graph_path)
    return Prepared(tissue=found, features=features, graph=seen, graph_path=graph_path, plane=plane, labels=labels)


@contextmanager
def _given_effects(slices: "list[SliceStore]") -> Iterator[None]:
    """Let `captured` know what each slice of a simulation does to each gene."""
    from stscale.slices.capture import captured

    effect = np.stack([store.var()["batch_log_effect"].to_numpy() for store in slices])
    effect = effect - effect.mean(axis=0)

    def true(
        totals: NDArray[np.float64], mean: NDArray[np.float64], present: NDArray[np.bool_], *, prior: float
    ) -> NDArray[np.float64]:
        found, share = captured(totals, mean, present, prior=prior), mean / mean.sum()
        # as high as the measured ones on the whole: a slice's library is known without them
        whole = (np.log(found) - effect) @ share
        return np.asarray(np.exp(whole[:, None] + effect))

    with patch("stscale.slices.preprocess.captured", true):
        yield


def _joined(features: "FeatureStore", plane: "Graph", graph: "GraphOptions", seed: int) -> "Graph":
    """Join the slices as a run with `graph.across` does, each to the one before it."""
    import tempfile

    from stscale.alignment import PairList
    from stscale.config import Run
    from stscale.graphs import with_edges
    from stscale.integrating.joining import Untrained, joined_pair

    config = Run(graph=graph, seed=seed)
    with tempfile.TemporaryDirectory() as scratch:
        units: list[float | None] = [None] * features.n_slices
        slices = Untrained(features, plane, units, rounds=config.smooth.rounds, folder=Path(scratch))
        pairs = PairList.build(features.slice_names).pairs
        ends = [joined_pair(slices, source, target, config).ends for source, target in pairs]
    return with_edges(plane, *np.concatenate(ends, axis=1))
