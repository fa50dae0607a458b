"""What a run leaves behind at its end: the weights, the best ones, curves, figures."""

import logging

import keras
import numpy as np

from keras_cnv2.files import replacing

from ..drawing.runs import learning_curves
from ..loop import state

logger = logging.getLogger(__name__)

BEST = "best.keras"


def save(model, path):
    """Writes a Keras file, whole or not at all.

    Without optimizer, loss and metrics, which may be of classes that only this application has: whoever imports
    keras_cnv2 loads it.
    """
    with replacing(path) as temporary:
        _uncompiled(model).save(temporary)


def _uncompiled(model):
    """The model, or a copy of one that is compiled."""
    if not model.compiled:
        return model
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model) | {"compile_config": None})
    copy.set_weights(model.get_weights())
    return copy


def save_best(model, progress, folder, finished=lambda model: model):
    """Writes best.keras of the best epoch; the model then has its weights.

    There may be one already, from the end of that epoch, or none if the run was killed just then. If the best
    checkpoint is damaged or gone, the log says so, and no other takes its place.

    Args:
        model: The compiled model.
        progress: The `training.loop.state.Progress` at the end.
        folder: Path of the run.
        finished: From the model to the one that is saved.
    """
    if progress.best is None:  # the run ended within its first epoch
        return
    if progress.best != progress.step:
        path = state.checkpoints(folder / "checkpoints").get(progress.best)
        if path is None or state.load(path, model) is None:
            logger.warning("best.keras is not written: the checkpoint of step %s cannot be read", progress.best)
            return
        model.optimizer.finalize_variable_values(model.trainable_variables)
    save(finished(model), folder / BEST)


def draw_curves(history, folder, labels):
    """Draws learning_curves.png: a panel for each figure, with its course in training and in validation."""
    if not history:
        return
    panels = {}
    for label in labels:
        curves = {"training": label, "validation": f"val_{label}"}
        panels[label] = {
            name: [row.get(key, np.nan) for row in history] for name, key in curves.items() if key in history[0]
        }
    learning_curves(folder / "learning_curves.png", panels)


def last(history, *names):
    """Figures of the last epoch, a dict; empty if the run ended within its first."""
    return {name: row[name] for row in history[-1:] for name in names}


def summary(model, progress):
    """What metrics.json says of every run: parameters, steps, seconds, the best epoch if there is one."""
    history = progress.history
    seconds = round(sum(row["seconds"] for row in history), 1)
    found = {"parameters": model.count_params(), "steps": progress.step, "seconds": seconds}
    best = [row["epoch"] for row in history if row["step"] == progress.best]
    return found | {"best_epoch": best[0]} if best else found
