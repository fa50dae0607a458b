"""Writes the results at the end of a run: the model, the best model, curves, metrics."""

import logging

import numpy as np

from keras_cnv2.files import replacing

from ..drawing.runs import learning_curves
from ..loop import state
from .names import BEST

logger = logging.getLogger(__name__)


def save(model, path):
    """Writes a Keras file, completely or not at all.

    The file contains no optimizer, loss and metrics, which may have classes that only this application defines. So it
    can be loaded with keras_cnv2 alone.
    """
    with replacing(path) as temporary:
        _uncompiled(model).save(temporary)


def _uncompiled(model):
    """Returns the model if it is not compiled, else an uncompiled copy."""
    if not model.compiled:
        return model
    copy = type(model).from_config(model.get_config())
    copy.set_weights(model.get_weights())
    return copy


def save_best(model, progress, folder, finished=lambda model: model):
    """Loads the weights of the best epoch into the model and writes best.keras.

    best.keras may exist already, from the end of that epoch, or be missing if the run was killed just then. If the best
    checkpoint is damaged or missing, a warning is logged and best.keras is not written.

    Args:
        model: The compiled model.
        progress: The `training.loop.state.Progress` at the end.
        folder: Path of the run's folder.
        finished: Function from the model to the model that is saved.
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
    """Draws learning_curves.png: a panel for each metric, with its training and validation curves."""
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
    """Returns metrics of the last epoch, a dict; empty if the run ended within its first epoch."""
    return {name: row[name] for row in history[-1:] for name in names}


def summary(model, progress):
    """Returns the entries of metrics.json that all runs have: parameters, steps, seconds, and the best epoch if any."""
    history = progress.history
    seconds = round(sum(row["seconds"] for row in history), 1)
    found = {"parameters": model.count_params(), "steps": progress.step, "seconds": seconds}
    best = [row["epoch"] for row in history if row["step"] == progress.best]
    return found | {"best_epoch": best[0]} if best else found
