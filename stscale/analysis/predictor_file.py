"""A fitted predictor of domains on disk: plain arrays in one file, so that no code is in it."""

import json
from pathlib import Path
from typing import Any, Final

import numpy as np

from stscale.analysis.domains import Assigner, Centroids, Predictor
from stscale.analysis.features import Reduction
from stscale.analysis.leiden import Votes
from stscale.analysis.mixture import TiedMixture
from stscale.analysis.shrunk import ShrunkMixture
from stscale.atomic import atomic_path
from stscale.errors import InputError

FORMAT: Final = 1
NAME: Final = "predictor.npz"
"""Of a run folder."""

KINDS: dict[str, type[Any]] = {k.__name__: k for k in (ShrunkMixture, TiedMixture, Centroids, Votes)}


def save_predictor(path: Path, predictor: Predictor) -> None:
    """Write a predictor, whole or not at all.

    Parameters
    ----------
    path
        Usually `NAME` in a run folder.
    predictor
        Of a `DomainFit`.
    """
    own, r = predictor.assigner, predictor.reduction
    arrays: dict[str, Any] = {"order": predictor.order, "mean": r.mean, "centre": r.centre}
    arrays |= {name: value for name in ("basis", "scale") if (value := getattr(r, name)) is not None}
    fields = type(own).__slots__  # type: ignore[attr-defined]  # all kinds are slotted dataclasses
    held = {name: getattr(own, name) for name in fields}
    arrays |= {f"assigner_{name}": value for name, value in held.items() if isinstance(value, np.ndarray)}
    plain = {name: value for name, value in held.items() if not isinstance(value, np.ndarray)}
    told = {"format": FORMAT, "kind": type(own).__name__, "l2_normalize": r.l2_normalize, "plain": plain}
    with atomic_path(path) as part, part.open("wb") as file:
        np.savez(file, told=np.frombuffer(json.dumps(told).encode(), dtype=np.uint8), **arrays)


def load_predictor(path: Path) -> Predictor:
    """Read a predictor.

    Raises
    ------
    InputError
        If there is none, or one of another version.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        told = json.loads(arrays.pop("told").tobytes())
    except FileNotFoundError:
        raise InputError(f"{path} is missing: the run's domains were not kept; run stscale integrate again") from None
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} is damaged ({type(error).__name__}); run stscale integrate with --fresh") from error
    if told.get("format") != FORMAT or told.get("kind") not in KINDS:
        raise InputError(
            f"{path} is of version {told.get('format')} ({told.get('kind')}), this program reads version {FORMAT}; "
            "run stscale integrate with --fresh"
        )
    held = {name.removeprefix("assigner_"): v for name, v in arrays.items() if name.startswith("assigner_")}
    assigner: Assigner = KINDS[told["kind"]](**held, **told["plain"])
    return Predictor(
        reduction=Reduction(
            mean=arrays["mean"],
            l2_normalize=told["l2_normalize"],
            centre=arrays["centre"],
            basis=arrays.get("basis"),
            scale=arrays.get("scale"),
        ),
        assigner=assigner,
        order=arrays["order"],
    )
