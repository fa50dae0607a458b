"""Checkpoints: the whole state of a training run in one file, which is written completely or not at all.

A checkpoint is a safetensors file. It holds the variables of the model (including the states of its random generators)
and of the optimizer (including moving averages and accumulated gradients), and as metadata the progress of the run:
step and history.
"""

import json
import logging
import os
import re
import zlib
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from keras_cnv2.checkpoints.described import CHECKSUM, CHECKSUMS, DESCRIPTION, description
from keras_cnv2.checkpoints.write import write_tensors
from keras_cnv2.files import replacing
from keras_cnv2.keras_internals import averages_of

from ..errors import RunError

logger = logging.getLogger(__name__)

NAME = "step-{:010d}.safetensors"
PATTERN = re.compile(r"step-(\d{10})\.safetensors")
KEPT = 3

# Metadata key of the JSON text with the progress and the checksums of the arrays. CHECKSUM is the key of its checksum.
KEY = "keras_cnv2"


class Progress(NamedTuple):
    """How far a run has come.

    Args:
        step: Number of steps done, which is also the position in the data.
        history: One dict of metrics for each epoch done.
        best: Step of the best checkpoint so far, or `None`.
        steps_per_epoch: Number of steps in an epoch; `None` in checkpoints of earlier versions.
    """

    step: int = 0
    history: tuple = ()
    best: int | None = None
    steps_per_epoch: int | None = None

    def rescaled(self, steps_per_epoch, accumulation=1):
        """Returns the same position in the data for another number of steps per epoch.

        Args:
            steps_per_epoch: Number of steps in an epoch from now on.
            accumulation: Number of steps whose gradients make one optimizer step. The new step is a multiple of it.
        """
        history = tuple(row | {"step": row["epoch"] * steps_per_epoch} for row in self.history)
        best = [new["step"] for old, new in zip(self.history, history) if old["step"] == self.best]
        step = self.step * steps_per_epoch // self.steps_per_epoch // accumulation * accumulation
        return Progress(step, history, best[0] if best else None, steps_per_epoch)


def save(folder, model, progress, described=None):
    """Writes a checkpoint, then removes all others except the last three and the best.

    Args:
        folder: Path of the checkpoint folder; created if it does not exist.
        model: The compiled model, its optimizer built.
        progress: The `Progress`.
        described: Optional result of `keras.saving.serialize_keras_object` for the model that the run ends with. With
            it, the library can restore that model from the checkpoint, with the moving averages if the optimizer
            keeps them.

    Returns:
        The checkpoint's path.
    """
    folder.mkdir(exist_ok=True)
    path = folder / NAME.format(progress.step)
    arrays = {name: np.asarray(keras.ops.convert_to_numpy(v), order="C") for name, v in variables(model).items()}
    content = {"progress": progress._asdict(), CHECKSUMS: {name: checksum(a) for name, a in arrays.items()}}
    weights = _weights(model)
    if described and len(weights) == len(model.weights):  # in models of users, several weights may share a path
        content[DESCRIPTION] = description(described, weights)
    text = json.dumps(content)
    with replacing(path) as temporary:
        write_tensors(temporary, arrays, {KEY: text, CHECKSUM: str(zlib.crc32(text.encode()))})
        with open(temporary, "rb+") as file:  # Windows does not flush files opened for reading only
            os.fsync(file.fileno())
    found = checkpoints(folder)
    for step in found.keys() - {*sorted(found)[-KEPT:], progress.best, progress.step}:
        found[step].unlink()
    return path


def renumber(folder, model, progress, described=None):
    """Saves a checkpoint and removes all others, whose steps were counted differently. Arguments as in `save`."""
    path = save(folder, model, progress, described)
    for other in checkpoints(folder).values():
        if other != path:
            other.unlink()


def restore(folder, model):
    """Loads the newest undamaged checkpoint into a model.

    Args:
        folder: Path of the checkpoint folder.
        model: The compiled model, its optimizer built.

    Returns:
        The `Progress` of the checkpoint, or of a new run if there is no checkpoint.
    """
    found = checkpoints(folder)
    for step in sorted(found, reverse=True):
        if progress := load(found[step], model):
            return progress
    return Progress()


def restore_best(folder, model, progress):
    """Loads the best checkpoint into a model.

    Args:
        folder: Path of the checkpoint folder.
        model: The compiled model, its optimizer built.
        progress: The `Progress` of the newest checkpoint.

    Returns:
        The `Progress` of the best checkpoint.

    Raises:
        RunError: If the best checkpoint is missing or damaged.
    """
    path = checkpoints(folder).get(progress.best)
    best = path and load(path, model)
    if best is None:
        raise RunError(f"The best checkpoint is missing or cannot be read. Received: {folder}, step {progress.best}")
    return best


def load(path, model):
    """Loads a checkpoint into a model, unless it is damaged.

    A damaged checkpoint is logged and renamed, so that it does not count among the checkpoints that are kept.

    Args:
        path: Path of the checkpoint.
        model: The compiled model, its optimizer built.

    Returns:
        The `Progress`; `None` if the checkpoint is damaged, which leaves the model unchanged.
    """
    try:
        arrays, content = read(path)
        progress = content["progress"]
        progress = Progress(**{**progress, "history": tuple(progress["history"])})
    except (ImportError, MemoryError, OSError):  # the file may be fine: the next attempt may succeed
        raise
    except Exception as error:  # whatever safetensors or JSON raise for a damaged file
        aside = path.replace(path.with_name(path.name + ".damaged"))
        logger.warning("%s is damaged and skipped; it was renamed to %s (%s)", path, aside.name, error)
        return None
    assign(model, arrays, path)
    return progress


def read(path):
    """Returns the arrays and the metadata of a checkpoint, after checking their checksums."""
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        metadata = file.metadata()
    text = metadata[KEY]
    # Checkpoints of earlier versions have no checksum of their metadata.
    whole = metadata.get(CHECKSUM) in (None, str(zlib.crc32(text.encode())))
    content = json.loads(text)
    if not whole or {name: checksum(array) for name, array in arrays.items()} != content[CHECKSUMS]:
        raise ValueError("its contents have changed since they were written")
    return arrays, content


def checkpoints(folder):
    """Returns the checkpoints in a folder as a dict: step -> path."""
    names = {path: PATTERN.fullmatch(path.name) for path in Path(folder).glob("step-*")}
    return {int(match[1]): path for path, match in names.items() if match}


def variables(model):
    """Returns all variables that make up the state of a compiled model: name -> variable."""
    groups = {"model": model.variables, "optimizer": model.optimizer.variables}
    # Numbered instead of named by path: paths of random generators depend on what else the process has built.
    return {f"{group}/{number:05d}": v for group, vs in groups.items() for number, v in enumerate(vs)}


def _weights(model):
    """Returns a dict from each weight's path to the name of the array that it gets at the end of a run."""
    names = {id(variable): name for name, variable in variables(model).items()}
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    averages = averages_of(optimizer) if optimizer.use_ema else []
    averaged = {id(v): names[id(a)] for v, a in averages if a is not None}
    return {weight.path: averaged.get(id(weight), names[id(weight)]) for weight in model.weights}


def assign(model, arrays, path):
    """Sets the variables of a model to the arrays of the checkpoint at `path`."""
    expected = variables(model)
    misfits = sorted(expected.keys() ^ arrays.keys()) + sorted(
        name for name in expected.keys() & arrays.keys() if tuple(expected[name].shape) != arrays[name].shape
    )
    if misfits:
        raise ValueError(f"The checkpoint is of another model or optimizer. Received: {path}, misfits {misfits[:5]}")
    for name, variable in expected.items():
        variable.assign(arrays[name])


def checksum(array):
    return zlib.crc32(memoryview(array).cast("B") if array.size and array.ndim else array.tobytes())
