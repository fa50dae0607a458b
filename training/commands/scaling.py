"""Scales the values of an .npz file as in the run that produced the weights."""

import dataclasses
import logging
from pathlib import Path

from keras_cnv2.checkpoints.hub_folder import is_hub_folder

from ..recipes.fields import Recipe
from ..runs.config import FOUND
from ..runs.names import CONFIG
from .config import read_config, value_of

logger = logging.getLogger(__name__)

SCALING = ("scale", "mean", "deviation")

# Kinds of runs whose `scale` is a range of random sizes.
OF_SIZES = ("Segmentation", "Detection")


def run_of(weights):
    """Returns the folder of the run that weights belong to, or `None`.

    Weights may be the folder itself, a model in it or one of its checkpoints.
    """
    if not weights or not Path(weights).exists():  # a published tag
        return None
    path = Path(weights)
    folders = path, path.parent.parent if path.parent.name == "checkpoints" else path.parent
    return next((folder for folder in folders if (folder / CONFIG).is_file() and not is_hub_folder(folder)), None)


def scaling_of(run):
    """Returns how a run scaled its values: a dict of the fields that were given, or of those measured on its data.

    Args:
        run: Path of the run's folder or of its config.json.

    Raises:
        RecipeError or RunError: If the file is damaged.
    """
    config = read_config(run)
    if config["kind"] in OF_SIZES:
        return {}
    told = {name: config[name] for name in SCALING if config.get(name) is not None}
    found = config.get(FOUND)
    taken = {name: found[name] for name in SCALING if name in found} if isinstance(found, dict) and not told else {}
    types = {field.name: field.type for field in dataclasses.fields(Recipe)}
    return {name: value_of(name, value, types[name], run) for name, value in (told or taken).items()}


def like_weights(recipe):
    """Returns a recipe for an .npz file that scales its values as in the run that produced the weights; logs this.

    The recipe's own scaling has priority; if it differs from that of the run, a warning is logged.
    """
    run = run_of(recipe.weights)
    if run is None or not str(recipe.data).endswith(".npz"):
        return recipe
    before, given = scaling_of(run), {name: getattr(recipe, name) for name in SCALING}
    given = {name: value for name, value in given.items() if value is not None}
    if given and before and given != before:
        logger.warning("values are scaled by %s, but in %s by %s", _told(given), run, _told(before))
    if given or not before:
        return recipe
    logger.warning("values are scaled as in %s, the run of these weights: %s", run, _told(before))
    return dataclasses.replace(recipe, **before)


def _told(scaling):
    values = {name: value if isinstance(value, tuple) else (value,) for name, value in scaling.items()}
    return " ".join(f"--{name} {','.join(f'{number:.6g}' for number in row)}" for name, row in values.items())
