"""Finds the weights that a command starts from, also in the folder of an earlier run."""

import logging
from pathlib import Path

from keras_cnv2.checkpoints.hub_folder import is_hub_folder
from keras_cnv2.checkpoints.model_folder import is_model_folder
from keras_cnv2.checkpoints.read import file_at

from ..errors import RunError
from ..files import read_json
from ..runs.names import CONFIG, METRICS, MODELS

logger = logging.getLogger(__name__)

ALL = tuple(MODELS.values())


def weights_of(recipe, finished=ALL, field="weights"):
    """Resolves a recipe's `weights`: for a run's folder, returns the model in it; returns anything else as is.

    For an unfinished run, returns its best model or its newest checkpoint, and logs this.

    Args:
        recipe: The recipe.
        finished: File names of models in a run's folder; the first that exists is returned.
        field: Name of the recipe's field that is resolved.

    Raises:
        RunError: If the folder belongs to another kind of run.
        CheckpointError: If the run has no checkpoint yet.
    """
    folder = Path(getattr(recipe, field))
    if not (folder / CONFIG).exists() or is_hub_folder(folder):
        return getattr(recipe, field)
    for name in finished:
        if (folder / name).exists():
            return str(folder / name)
    kind = read_json(folder / CONFIG).get("kind")
    if MODELS.get(kind) in finished and is_model_folder(folder):
        path = file_at(folder)
        logger.warning("%s is an unfinished run: its %s is used", folder, path.relative_to(folder))
        return str(path)
    state = "finished" if (folder / METRICS).exists() else "not finished"
    raise RunError(
        f"{field} must be of a finished run that has {' or '.join(finished)}. Received: {field}={folder}, a run of "
        f"{kind} that is {state}"
    )
