"""Predictors of domains come back from disk as they were."""

import json

import numpy as np
import pytest

from stscale.analysis import cluster
from stscale.analysis.predictor_file import FORMAT, load_predictor, save_predictor
from stscale.config import Domains
from stscale.errors import InputError


@pytest.fixture(scope="module")
def latents() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.standard_normal((300, 6)) + 6 * rng.integers(0, 3, (300, 1))).astype(np.float32)


@pytest.mark.parametrize(
    "options",
    [
        {"covariance": "shrunk"},
        {"covariance": "tied", "l2_normalize": True, "n_components": 3},
        {"method": "kmeans"},
        {"method": "leiden"},
    ],
    ids=lambda o: "-".join(map(str, o.values())),
)
def test_predictions_are_those_of_the_fit(latents, options, tmp_path) -> None:
    fit = cluster(latents, Domains(k=3, n_init=2, **options), seed=0)
    save_predictor(tmp_path / "p.npz", fit.predictor)
    found = load_predictor(tmp_path / "p.npz")
    new = latents[::-1] + np.float32(0.1)
    assert type(found.assigner) is type(fit.predictor.assigner)
    assert np.array_equal(found.predict(new), fit.predictor.predict(new))
    assert len(set(found.predict(new))) == 3


def test_missing_damaged_and_newer_files_are_refused(latents, tmp_path) -> None:
    path = tmp_path / "p.npz"
    with pytest.raises(InputError, match="is missing"):
        load_predictor(path)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="is damaged"):
        load_predictor(path)
    told = json.dumps({"format": FORMAT + 1, "kind": "ShrunkMixture"}).encode()
    np.savez(path, told=np.frombuffer(told, np.uint8))
    with pytest.raises(InputError, match=f"version {FORMAT + 1}"):
        load_predictor(path)
    # objects would be code
    np.savez(path, told=np.array([{"format": FORMAT}], dtype=object))
    with pytest.raises(InputError, match="is damaged"):
        load_predictor(path)
