"""The method of a finished run, with what its training left."""

from pathlib import Path

import torch

from stscale import __version__
from stscale.config import Run
from stscale.errors import InputError
from stscale.models import METHODS, Method, Shape
from stscale.rundir import read_manifest
from stscale.slices.features import FeatureStore

MODEL = "model.pt"


def trained(run: Path, config: Run, features: FeatureStore, width: int, device: torch.device) -> Method:
    """Return the trained network of a run, in evaluation mode on `device`; a method without training as it is.

    Parameters
    ----------
    run
        The run folder.
    config
        The run's own.
    features
        Of the run.
    width
        Columns that the network reads.
    device
        Where the network goes.

    Raises
    ------
    InputError
        If the run is not trained to its end, or its model is missing, damaged or of another version.
    """
    stage = read_manifest(run)["stages"].get("embed")
    if stage is None:
        raise InputError(f"{run} is not finished: it is not trained to its end; run stscale integrate again")
    recipe = METHODS[config.method]
    shape = Shape(width=width, genes=features.g, slices=features.n_slices, spots=features.n)
    if not config.trains:
        return recipe.make(config, shape).to(device).eval()
    path = run / MODEL
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path} is missing; run stscale integrate with --fresh") from None
    except Exception as error:  # torch raises many kinds for a damaged archive
        raise InputError(f"{path} is damaged ({type(error).__name__}); run stscale integrate with --fresh") from error
    if content.get("version") != __version__ or content.get("digest") != stage["digest"]:
        raise InputError(
            f"{path} was written by stscale {content.get('version')} or for other settings, this is {__version__}; run "
            "stscale integrate with --fresh"
        )
    with torch.random.fork_rng(devices=[]):  # weights are drawn and overwritten: nobody's generator moves on
        method = recipe.make(config, shape)
    method.load_state_dict(content["state"])
    return method.to(device).eval()
