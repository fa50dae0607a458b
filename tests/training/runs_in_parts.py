"""Runs that are interrupted and go on, in this process: for whatever trains through `training.loop.train`."""

import shutil

import keras
import numpy as np
import pytest

from training.loop import state, train
from training.runs.folder import open_run


class StopAt(keras.callbacks.Callback):
    """What a kill looks like from within the process."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        self.step -= 1
        if self.step == 0:
            raise KeyboardInterrupt


def interrupt(monkeypatch, step, run):
    """Calls `run`, and interrupts its training after so many steps."""
    with monkeypatch.context() as patch:
        patch.setattr(train, "tensorboard", lambda folder: [StopAt(step)])  # among the last callbacks
        with pytest.raises(KeyboardInterrupt):
            run()


def interrupted(folder, recipe, found=None):
    """Begins a run that looks as if it was interrupted after its first checkpoint. Returns its folder."""
    open_run(folder, recipe, found)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "step-0000000001.safetensors").touch()
    return folder


def assert_same_state(one, two):
    """That the newest checkpoints of two runs have the same arrays, within what sums in another order make."""
    (step, first), (other_step, second) = (max(state.checkpoints(run / "checkpoints").items()) for run in (one, two))
    assert step == other_step
    arrays, others = state.read(first)[0], state.read(second)[0]
    assert arrays.keys() == others.keys()
    for name, array in arrays.items():
        np.testing.assert_allclose(others[name], array, rtol=1e-5, atol=1e-6, err_msg=name)


def assert_ends_after_its_export(command, recipe, run, tmp_path):
    """That the same command ends a run that was interrupted in what comes after its export, which takes long.

    Args:
        command: The function that runs a recipe in a folder.
        recipe: The recipe.
        run: Folder and metrics of a finished run of it, which stays.
        tmp_path: Path of an empty folder.

    Returns:
        The metrics.
    """
    folder = shutil.copytree(run[0], tmp_path / "run")
    (folder / "metrics.json").unlink()
    assert (folder / "saved_model").exists()
    metrics = command(recipe, folder)
    assert metrics.keys() == run[1].keys()
    assert (folder / "metrics.json").exists()
    return metrics
