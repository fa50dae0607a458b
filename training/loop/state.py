"""The state of a training run as a file: all of it, whole or not there.

A checkpoint is a safetensors file: the variables of the model (the states of its random generators among them) and of
the optimizer (the moving average and accumulated gradients among them), and as metadata the position and the history.
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

from ..errors import RunError

logger = logging.getLogger(__name__)

NAME = "step-{:010d}.safetensors"
PATTERN = re.compile(r"step-(\d{10})\.safetensors")
KEPT = 3

# Under which a checkpoint has progress and checksums of the arrays, as JSON, beside the checksum of that text.
KEY = "keras_cnv2"


class Progress(NamedTuple):
    """How far a run has come.

    Args:
        step: Steps done; the data's position is the same number.
        history: One dict of metrics an epoch done.
        best: Step of the best checkpoint so far, or `None`.
        steps_per_epoch: Steps of an epoch, or `None` in checkpoints of before.
    """

    step: int = 0
    history: tuple = ()
    best: int | None = None
    steps_per_epoch: int | None = None

    def rescaled(self, steps_per_epoch, accumulation=1):
        """The same place in the data, where an epoch has another number of steps.

        Args:
            steps_per_epoch: Steps of an epoch from now on.
            accumulation: Steps that make one of the optimizer, which all begin at a multiple of these.
        """
        history = tuple(row | {"step": row["epoch"] * steps_per_epoch} for row in self.history)
        best = [new["step"] for old, new in zip(self.history, history) if old["step"] == self.best]
        step = self.step * steps_per_epoch // self.steps_per_epoch // accumulation * accumulation
        return Progress(step, history, best[0] if best else None, steps_per_epoch)


def save(folder, model, progress, described=None):
    """Writes a checkpoint, then removes others that are neither among the last three nor the best.

    Args:
        folder: Path of the folder of checkpoints; made if it is not there.
        model: The compiled model, its optimizer built.
        progress: The `Progress`.
        described: Optional, what `keras.saving.serialize_keras_object` makes of the model that the run ends with: the
            library then restores that from the checkpoint, with the moving averages where the optimizer keeps some.

    Returns:
        The checkpoint's path.
    """
    folder.mkdir(exist_ok=True)
    path = folder / NAME.format(progress.step)
    arrays = {name: np.asarray(keras.ops.convert_to_numpy(v), order="C") for name, v in variables(model).items()}
    content = {"progress": progress._asdict(), CHECKSUMS: {name: checksum(a) for name, a in arrays.items()}}
    weights = _weights(model)
    if described and len(weights) == len(model.weights):  # others' models may have several of a path
        content[DESCRIPTION] = description(described, weights)
    text = json.dumps(content)
    with replacing(path) as temporary:
        write_tensors(temporary, arrays, {KEY: text, CHECKSUM: str(zlib.crc32(text.encode()))})
        with open(temporary, "rb+") as file:  # Windows flushes no files that are opened for reading
            os.fsync(file.fileno())
    found = checkpoints(folder)
    for step in found.keys() - {*sorted(found)[-KEPT:], progress.best, progress.step}:
        found[step].unlink()
    return path


def renumber(folder, model, progress, described=None):
    """Saves a checkpoint and removes all others, whose steps were counted otherwise. Arguments as of `save`."""
    path = save(folder, model, progress, described)
    for other in checkpoints(folder).values():
        if other != path:
            other.unlink()


def restore(folder, model):
    """Loads the newest checkpoint that is whole into a model; damaged ones are passed over.

    Args:
        folder: Path of the folder of checkpoints.
        model: The compiled model, its optimizer built.

    Returns:
        The `Progress`; that of a new run if there is no checkpoint.
    """
    found = checkpoints(folder)
    for step in sorted(found, reverse=True):
        if progress := load(found[step], model):
            return progress
    return Progress()


def restore_best(folder, model, progress):
    """Loads the best checkpoint into a model.

    Args:
        folder: Path of the folder of checkpoints.
        model: The compiled model, its optimizer built.
        progress: The `Progress` of the newest.

    Returns:
        The `Progress` at the best one.

    Raises:
        RunError: If it is not there or damaged.
    """
    path = checkpoints(folder).get(progress.best)
    best = path and load(path, model)
    if best is None:
        raise RunError(f"There is no best checkpoint that can be read. Received: {folder}, step {progress.best}")
    return best


def load(path, model):
    """Loads a checkpoint into a model, if it is whole.

    A damaged one is named in the log and gets another name: it must not count among those that are kept.

    Args:
        path: Path of the checkpoint.
        model: The compiled model, its optimizer built.

    Returns:
        The `Progress`; `None` if the checkpoint is damaged, and the model is as it was.
    """
    try:
        arrays, content = read(path)
        progress = content["progress"]
        progress = Progress(**{**progress, "history": tuple(progress["history"])})
    except (ImportError, MemoryError, OSError):  # not the file's fault: it may be read the next time
        raise
    except Exception as error:  # whatever safetensors or JSON raise for a damaged file
        aside = path.replace(path.with_name(path.name + ".damaged"))
        logger.warning("%s is damaged and passed over; it is %s now (%s)", path, aside.name, error)
        return None
    assign(model, arrays, path)
    return progress


def read(path):
    """The arrays and the metadata of a checkpoint, checked to be as they were written."""
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        metadata = file.metadata()
    text = metadata[KEY]
    # Checkpoints of before have no checksum of their metadata.
    whole = metadata.get(CHECKSUM) in (None, str(zlib.crc32(text.encode())))
    content = json.loads(text)
    if not whole or {name: checksum(array) for name, array in arrays.items()} != content[CHECKSUMS]:
        raise ValueError("its contents have changed since they were written")
    return arrays, content


def checkpoints(folder):
    """The checkpoints of a folder: step -> path."""
    names = {path: PATTERN.fullmatch(path.name) for path in Path(folder).glob("step-*")}
    return {int(match[1]): path for path, match in names.items() if match}


def variables(model):
    """All that makes up the state of a compiled model: name -> variable."""
    groups = {"model": model.variables, "optimizer": model.optimizer.variables}
    # Numbered: paths are for people, and those of random generators depend on what else a process has built.
    return {f"{group}/{number:05d}": v for group, vs in groups.items() for number, v in enumerate(vs)}


def _weights(model):
    """The names of the arrays that are the model's weights at the end of a run, by the weights' paths."""
    names = {id(variable): name for name, variable in variables(model).items()}
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    averages = optimizer._model_variables_moving_average if optimizer.use_ema else []
    averaged = {id(v): names[id(a)] for v, a in zip(optimizer._trainable_variables, averages) if a is not None}
    return {weight.path: averaged.get(id(weight), names[id(weight)]) for weight in model.weights}


def assign(model, arrays, path):
    """Sets the variables of a model to the arrays of the checkpoint at `path`."""
    expected = variables(model)
    misfits = sorted(expected.keys() ^ arrays.keys()) + sorted(
        name for name in expected.keys() & arrays.keys() if tuple(expected[name].shape) != arrays[name].shape
    )
    if misfits:
        raise ValueError(f"The checkpoint is another model's or optimizer's. Received: {path}, misfits {misfits[:5]}")
    for name, variable in expected.items():
        variable.assign(arrays[name])


def checksum(array):
    return zlib.crc32(memoryview(array).cast("B") if array.size and array.ndim else array.tobytes())
