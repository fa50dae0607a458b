import zipfile

import keras
import numpy as np
import pytest

from training.loop import state
from training.loop.state import Progress
from training.recipes import schedules
from training.runs import results


def compiled():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def at_step(model, step):
    for weight in model.trainable_variables:
        weight.assign(np.full(weight.shape, step))


def values(model):
    return {float(value) for weight in model.get_weights() for value in weight.ravel()}


@pytest.fixture
def run(tmp_path):
    """A model at the end of three epochs of a step, the second of which was the best, and its progress."""
    model = compiled()
    for step in (1, 2, 3):
        at_step(model, step)
        state.save(tmp_path / "checkpoints", model, progress := Progress(step, (), min(step, 2)))
    return model, progress


def test_saved_without_what_only_the_application_has(run, tmp_path):
    """And the model that trains on stays compiled."""
    model, _ = run
    model.compile(keras.optimizers.Adam(schedules.Warmup(schedules.poly(0.1, 9), 3)), "mse")
    model.optimizer.build(model.trainable_variables)
    results.save(model, tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as file:
        assert b"keras_cnv2_training" not in file.read("config.json")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert not loaded.compiled
    for one, two in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert model.compiled


def test_best(run, tmp_path):
    results.save_best(*run, tmp_path)
    assert values(keras.saving.load_model(tmp_path / "best.keras")) == {2}


def test_the_last_is_the_best(run, tmp_path):
    model, progress = run
    results.save_best(model, progress._replace(best=3), tmp_path)
    assert values(keras.saving.load_model(tmp_path / "best.keras")) == {3}


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(path.read_bytes()[:-4]), lambda path: path.unlink()])
def test_no_other_takes_the_place_of_a_damaged_best(run, tmp_path, caplog, spoil):
    model, progress = run
    spoil(tmp_path / "checkpoints" / state.NAME.format(2))
    results.save_best(model, progress, tmp_path)
    assert not (tmp_path / "best.keras").exists()
    assert values(model) == {3}
    assert "best.keras is not written: the checkpoint of step 2" in caplog.text
