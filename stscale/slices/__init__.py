"""Slices of tissue on disk: what they are made from, how they are read, many of them as one.

Imported eagerly, because `ingest` and `simulate` are modules and functions: a name resolved on first use
would turn from the function into the module. The modules below load zarr, anndata and pandas only inside
their functions.
"""

from stscale.slices.collection import Collection
from stscale.slices.features import FeatureStore, build_features
from stscale.slices.hilbert import hilbert_order
from stscale.slices.ingest import ingest, ingest_parts
from stscale.slices.simulate import simulate
from stscale.slices.sources import Source, open_source
from stscale.slices.store import SliceStore, is_store
from stscale.slices.writer import StoreWriter

__all__ = [
    "Collection",
    "FeatureStore",
    "SliceStore",
    "Source",
    "StoreWriter",
    "build_features",
    "hilbert_order",
    "ingest",
    "ingest_parts",
    "is_store",
    "open_source",
    "simulate",
]
