"""The stages of a run in order: what each needs, makes, and when it is reused."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stscale import __version__
from stscale import config as options
from stscale.errors import InputError
from stscale.integrating.joining import Joining
from stscale.integrating.learn import VIEWS
from stscale.options import digest as options_digest

if TYPE_CHECKING:
    from stscale.graphs import Graph
    from stscale.slices.collection import Collection
    from stscale.slices.features import FeatureStore

DERIVED = ("imputed.zarr", "trajectory.csv", "figures/trajectory.png")
"""What was made of latents that are replaced."""


class Integration(Joining):
    """The stages of one run, in order; each is reused, resumed or done."""

    def go(self) -> tuple["Collection", "FeatureStore", "NDArray[np.int32]"]:
        """Do what is not done yet; return the slices, their features and the domain of each fit spot."""
        collection = self.ingest()
        self.run.file("config.toml").write_text(options.dump(self.config), encoding="utf-8")
        features = self.features(collection)
        graph = self.graph(features)
        graph = self.join(features, graph)
        graphs = self.views(features) or [graph]
        latents = self.train_and_embed(features, graphs)
        labels = self.domains(features, graph, graphs, latents)
        self.write(collection, features, latents, labels)
        self.quality(features, graph, latents, labels)
        shutil.rmtree(self.run.file("scratch"), ignore_errors=True)
        if not self.config.graph.across:  # the alignment that follows writes it
            self.report()
        return collection, features, labels

    def ingest(self) -> "Collection":
        """Bring every slice into a slice store, and check them as one collection."""
        from stscale.fingerprint import fingerprint
        from stscale.slices import Collection, SliceStore

        inputs = [dict(zip(("bytes", "hash"), fingerprint(p), strict=True), path=str(p)) for p in self.paths]
        hashes = [i["hash"] for i in inputs]
        known = self.run.manifest.get("inputs")
        if known and [i["hash"] for i in known] != hashes:
            raise InputError(
                f"{self.run.path} holds a run of other slices ({', '.join(Path(i['path']).name for i in known)}); "
                "give another folder with -o, or --fresh to start over"
            )
        now = self._chain(__version__, hashes, asdict(self.config.ingesting))
        held = self._stores()
        if self.config.ingest.split is not None:
            inputs = [dict(i, slices=[s.stem for s in own]) for i, own in zip(inputs, held, strict=True)]
        stores = [store for own in held for store in own]
        if len(set(stores)) < len(stores):
            twice = next(s.stem for s in stores if stores.count(s) > 1)
            raise InputError(f"two slices are called {twice!r}; rename one of the files")
        if self.run.finished("ingest", now, *stores):
            self.skip("ingest")
        else:
            self.observer({"event": "stage", "stage": "ingest", "state": "start"})
            with self.run.stage("ingest", now) as found:
                self._ingest(held)
                found["slices"] = len(stores)
        self.run.manifest["inputs"] = inputs
        pre = self.config.preprocess
        collection = Collection.build(
            [SliceStore.open(s) for s in stores], genes=pre.genes, min_shared=pre.min_shared_genes
        )
        collection.check_counts(pre)
        self.run.save()
        return collection

    def _stores(self) -> list[tuple[Path, ...]]:
        """Return the stores of each input: itself, where it is one, else one for each slice it holds."""
        from stscale.slices import is_store
        from stscale.slices.split import SUFFIX, slice_names

        folder = self.run.file("slices")
        names = slice_names(self.paths, self.config.ingest)
        return [
            (path,) if is_store(path) else tuple(folder / f"{name}{SUFFIX}" for name in own)
            for path, own in zip(self.paths, names, strict=True)
        ]

    def _ingest(self, held: list[tuple[Path, ...]]) -> None:
        from stscale.slices.ingest import bring
        from stscale.slices.split import SUFFIX
        from stscale.slices.stream import spread

        pairs = list(zip(self.paths, held, strict=True))
        for stores in spread(partial(bring, self.config.ingesting), pairs, self.compute):
            for store in stores:
                self.tell("ingested", slice=store.stem)
        # what a lost worker was writing, and slices of another `split`
        others = set(self.run.file("slices").glob(f"*{SUFFIX}")) - {store for stores in held for store in stores}
        for gone in (*self.run.file("slices").glob(".*.part"), *others):
            shutil.rmtree(gone, ignore_errors=True)

    def features(self, collection: "Collection") -> "FeatureStore":
        """Choose genes, normalise, compute principal components."""
        from stscale.slices.features import FeatureStore, build_features

        path = self.run.file("features.zarr")
        now = self._chain(asdict(self.config.preprocess), [s.name for s in collection.stores])
        if self.run.finished("features", now, path):
            self.skip("features")
            return FeatureStore.open(path)
        self.observer({"event": "stage", "stage": "features", "state": "start"})
        with self.run.stage("features", now) as found:
            features = build_features(
                collection,
                path,
                config=self.config.preprocess,
                seed=self.config.seed,
                workers=self.compute.workers,
                scheduler=self.compute.scheduler,
            )
            found.update(
                spots=collection.n,
                fit_spots=features.n,
                genes_shared=len(collection.genes),
                genes_any=len(np.unique(np.concatenate([s.genes() for s in collection.stores]))),
                genes_everywhere=int(collection.present.all(axis=0).sum()),
                genes_used=features.g,
                components=features.p,
                left_out={n: len(features.left_out(i)) for i, n in enumerate(features.slice_names)},
                shared_positions={s.name: s.shared_positions for s in collection.stores},
                um_per_unit={s.name: s.um_per_unit for s in collection.stores},
                notes=list(features.notes),
            )
        for note in features.notes:
            self.tell("note", text=note)
        return features

    def graph(self, features: "FeatureStore") -> "Graph":
        """Build the spatial graph of every slice."""
        from stscale.graphs import block_diagonal, load, slice_graph
        from stscale.slices.stream import spread

        path = self.run.file("graph.npz")
        now = self._chain({k: v for k, v in asdict(self.config.graph).items() if k != "across"})
        if self.run.finished("graph", now, path):
            self.skip("graph")
            return load(path)
        self.observer({"event": "stage", "stage": "graph", "state": "start"})
        with self.run.stage("graph", now) as found:
            slices = list(pairwise(features.offsets().tolist()))
            build = partial(slice_graph, features.xy, self.config.graph)
            graph = block_diagonal(list(spread(build, slices, self.compute)))
            graph.save(path)
            alone = int((graph.degree() == 0).sum())
            found.update(edges=graph.n_edges // 2, mean_degree=graph.n_edges / graph.n, isolated=alone)
        if alone:
            self.tell("note", text=f"{alone} spots have no spatial neighbour")
        return graph

    def views(self, features: "FeatureStore") -> list["Graph"]:
        """Build the spatial and the feature graph of every slice, where the method reads them."""
        from stscale.graphs import block_diagonal, load, view_graphs
        from stscale.models import METHODS
        from stscale.slices.stream import spread

        if not METHODS[self.config.method].views:
            return []
        paths = [self.run.file(name) for name in VIEWS]
        now = self._chain(asdict(self.config.views), self.config.seed)
        if self.run.finished("views", now, *paths):
            self.skip("views")
            return [load(path) for path in paths]
        self.observer({"event": "stage", "stage": "views", "state": "start"})
        with self.run.stage("views", now) as found:
            slices = list(pairwise(features.offsets().tolist()))
            build = partial(view_graphs, features.xy, features.pca, self.config.views, self.config.seed)
            graphs = [block_diagonal(parts) for parts in zip(*spread(build, slices, self.compute), strict=True)]
            for graph, path in zip(graphs, paths, strict=True):
                graph.save(path)
                found[path.stem] = {"edges": graph.n_edges // 2, "mean_degree": graph.n_edges / graph.n}
        return graphs

    def domains(
        self, features: "FeatureStore", graph: "Graph", graphs: "Sequence[Graph]", latents: NDArray[Any]
    ) -> NDArray[np.int32]:
        """Find the domain of each fit spot, (n_fit,) int32; `graph` smooths labels, `graphs` are what training read."""
        from stscale.analysis import predictor_file
        from stscale.analysis.assignment import assigned
        from stscale.analysis.beside import beside_components
        from stscale.analysis.domains import beside_neighbors, cluster, cluster_per_slice
        from stscale.analysis.scale import spatial_scale
        from stscale.analysis.smoothing import smooth_labels

        c = self.config.domains
        path, kept = self.run.file("domains.npy"), self.run.file(predictor_file.NAME)
        now = self._chain(asdict(c), self.config.seed, self.config.smooth.rounds)
        if self.run.finished("domains", now, path, *([] if c.per_slice or c.method == "assignment" else [kept])):
            self.skip("domains")
            return np.load(path)
        self.observer({"event": "stage", "stage": "domains", "state": "start"})
        with self.run.stage("domains", now) as found:
            scale = spatial_scale(
                features.pca, graph.indptr, graph.indices, used=self.config.smooth.rounds, seed=self.config.seed
            )
            wider = scale.wider(c.wider)
            scratch = self.run.file("scratch", "domains")
            seen = beside_components(self.config, features, graph, latents, scratch, wider=wider)
            found["scale"] = {**asdict(scale), "losses": {str(r): v for r, v in scale.losses.items()}}
            found["wider"] = asdict(wider) if wider and len(seen.parts) > 1 else None
            if c.method == "assignment":
                model, k = self.run.file("model.pt"), c.k or self.config.mhal.prototypes
                labels, more = assigned(model, latents, graphs, self.config.mhal, self.tell, k=k)
                found.update(more)
            elif c.per_slice:
                fits = cluster_per_slice(seen, features.slice(), c, seed=self.config.seed)
                labels = _numbered(fits.labels, features.slice())
            else:
                one = cluster(seen, c, seed=self.config.seed)
                if c.spatial and c.method == "gmm":
                    one = beside_neighbors(one, seen, graph.indptr, graph.indices, strength=c.spatial)
                labels = one.labels
                predictor_file.save_predictor(kept, one.predictor)
                found["curve"] = None if one.curve is None else _listed(asdict(one.curve))
                # k-means and Leiden have no such state
                found["converged"] = bool(getattr(one.predictor.assigner, "converged", True))
                if not found["converged"]:
                    self.tell("note", text="the mixture had not converged when its iterations ran out")
            if c.smooth_rounds:
                labels = smooth_labels(labels, graph.indptr, graph.indices, c.smooth_rounds)
            found["k"] = int(labels.max()) + 1
            self._save_latents(labels, path)
        return labels

    def write(self, collection: "Collection", features: "FeatureStore", latents: NDArray[Any], labels: Any) -> None:
        """Write integrated.zarr."""
        from stscale.output import write_integrated

        path = self.run.file("integrated.zarr")
        counts = self.config.output.counts
        now = self._chain("write", *(["counts"] if counts else []))
        if self.run.finished("write", now, path):
            self.skip("write")
            return
        self.observer({"event": "stage", "stage": "write", "state": "start"})
        with self.run.stage("write", now, undoes=("align", "transfer", "impute", "trajectory")):
            for made in map(self.run.file, DERIVED):
                shutil.rmtree(made, ignore_errors=True) if made.is_dir() else made.unlink(missing_ok=True)
            uns = {"version": __version__, "config": options.dump(self.config, meanings=False)}
            write_integrated(path, collection, features, latents, labels, uns, counts=counts)

    def quality(
        self, features: "FeatureStore", graph: "Graph", latents: NDArray[Any], labels: NDArray[np.integer]
    ) -> None:
        """Write quality.json; no later stage depends on it but the report, which shows it."""
        from stscale.integrating import quality

        path = self.run.file(quality.FILE)
        if not self.config.report.quality:
            path.unlink(missing_ok=True)
            self.run.forget("quality")
            return
        now = options_digest([self.digest, "quality", quality.FORMAT, asdict(self.config.smooth)])
        if self.run.finished("quality", now, path):
            self.skip("quality")
            return
        self.observer({"event": "stage", "stage": "quality", "state": "start"})
        with self.run.stage("quality", now, undoes=("report",)) as told:
            scratch = self.run.file("scratch")
            shutil.rmtree(scratch, ignore_errors=True)
            recorded = self.run.manifest["stages"]["domains"]
            found = quality.quality(features, graph, latents, labels, self.config, scratch)
            found["scale"] = quality.surroundings(recorded["scale"], recorded["wider"])
            quality.write(path, found)
            told["verdict"] = found["verdict"]

    def report(self) -> None:
        """Write report.html and its figures."""
        from stscale.report import write_report

        now = self._chain("report", asdict(self.config.report))
        path = self.run.file("report.html")
        if self.run.finished("report", now, path):
            self.skip("report")
            return
        self.observer({"event": "stage", "stage": "report", "state": "start"})
        with self.run.stage("report", now):
            write_report(self.run.path)


def _numbered(labels: NDArray[Any], group: NDArray[Any]) -> NDArray[np.int32]:
    """Give the domains of each slice numbers of their own."""
    _, found = np.unique(np.stack([group, labels]), axis=1, return_inverse=True)
    return found.ravel().astype(np.int32)


def _listed(values: dict[str, Any]) -> dict[str, Any]:
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in values.items()}
