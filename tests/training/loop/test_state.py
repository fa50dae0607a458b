import functools
import os
import struct

import keras
import numpy as np
import pytest

from tests.training.small import finetuning, source
from training.loop import state
from training.loop.optimizer import new_optimizer
from training.loop.state import Progress
from training.models.build import new_classifier

pytestmark = pytest.mark.backends


@functools.cache
def made(number, **fields):
    """A classifier with every kind of state: drop path, moving average, accumulated gradients."""
    recipe = finetuning(drop_path=0.2, ema=0.9, accumulation=2, **fields)
    model = new_classifier(recipe, 3, source().class_names)
    model.compile(new_optimizer(recipe, 6), loss="mse")
    model.optimizer.build(model.trainable_variables)
    return model


def compiled(seed, **fields):
    """Such a classifier with values of a seed. The same seed gives the same model again."""
    model = made(seed, **fields)
    rng = np.random.default_rng(seed)
    for variable in state.variables(model).values():
        variable.assign(rng.integers(0, 100, variable.shape))
    return model


def arrays(model):
    return {name: keras.ops.convert_to_numpy(v) for name, v in state.variables(model).items()}


def assert_equal(one, two):
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])


def test_state_is_complete():
    model = compiled(0)
    paths = {variable.path for variable in state.variables(model).values()}
    assert {variable.path for variable in model.weights} <= paths
    for part in ("seed_generator_state", "iteration", "momentum", "velocity", "average", "gradient_accumulator"):
        assert any(part in path for path in paths), part


def test_round_trip(tmp_path):
    model, other = compiled(0), compiled(1)
    progress = Progress(12, ({"epoch": 1, "step": 10, "loss": 0.5},), 10)
    path = state.save(tmp_path / "c", model, progress)
    assert path.name == "step-0000000012.safetensors"
    assert state.restore(tmp_path / "c", other) == progress
    assert_equal(arrays(model), arrays(other))


def test_rescaled():
    """Eight steps of three an epoch are two epochs and two thirds."""
    history = ({"epoch": 1, "step": 3, "loss": 2.0}, {"epoch": 2, "step": 6, "loss": 1.0})
    progress = Progress(8, history, 6, 3)
    assert progress.rescaled(3) == progress
    assert progress.rescaled(6) == Progress(16, (history[0] | {"step": 6}, history[1] | {"step": 12}), 12, 6)
    assert progress.rescaled(2).step == 5
    assert progress.rescaled(2, accumulation=2).step == 4
    assert Progress(2, (), None, 3).rescaled(1) == Progress(0, (), None, 1)


def test_without_checkpoint_it_is_a_new_run(tmp_path):
    model = compiled(0)
    before = arrays(model)
    assert state.restore(tmp_path / "none", model) == Progress(0, (), None)
    assert_equal(arrays(model), before)


def test_last_three_and_the_best_are_kept(tmp_path):
    model = compiled(0)
    for step in (1, 2, 3, 4, 5, 6):
        state.save(tmp_path, model, Progress(step, (), 2))
    assert sorted(state.checkpoints(tmp_path)) == [2, 4, 5, 6]
    assert len([*tmp_path.iterdir()]) == 4


DAMAGES = {
    "truncated": lambda content: content[:-100],
    "empty": lambda content: b"",
    "one bit": lambda content: content[:-100] + bytes([content[-100] ^ 1]) + content[-99:],
    "no header": lambda content: bytes(8) + content[8:],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoints_are_passed_over(tmp_path, caplog, damage):
    model, other = compiled(0), compiled(1)
    state.save(tmp_path, model, Progress(1))
    expected = arrays(model)
    for variable in model.trainable_variables:
        variable.assign(keras.ops.zeros(variable.shape))
    path = state.save(tmp_path, model, Progress(2))
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    assert state.restore(tmp_path, other).step == 1
    assert_equal(arrays(other), expected)
    assert f"{path} is damaged" in caplog.text
    assert sorted(file.name for file in tmp_path.iterdir()) == ["step-0000000001.safetensors", f"{path.name}.damaged"]


def test_no_flipped_bit_of_the_metadata_changes_anything(tmp_path):
    """It is noticed, or the progress is the same: where only the layout of the header changes."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.optimizer.build(model.trainable_variables)
    progress = Progress(30, tuple({"epoch": e + 1, "step": 10 * (e + 1), "loss": 0.5 / (e + 1)} for e in range(3)), 20)
    path = state.save(tmp_path, model, progress)
    good = path.read_bytes()
    (length,) = struct.unpack("<Q", good[:8])
    noticed = 0
    for place in range(8 + length):
        bad = bytearray(good)
        bad[place] ^= 1 << place % 8
        path.write_bytes(bad)
        loaded = state.load(path, model)
        assert loaded in (None, progress), (place, bad[: 8 + length])
        noticed += loaded is None
    assert noticed > 0.9 * length


def test_checkpoint_of_before_still_loads(tmp_path):
    """Without a checksum of its metadata."""
    from safetensors import safe_open
    from safetensors.numpy import save_file

    model = compiled(0)
    path = state.save(tmp_path, model, Progress(1, (), 1))
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
    del metadata[state.CHECKSUM]
    save_file(state.read(path)[0], path, metadata)
    assert state.load(path, model) == Progress(1, (), 1)


def test_files_are_flushed_as_windows_does_it(tmp_path, monkeypatch):
    """Which refuses that for files opened for reading."""
    fcntl = pytest.importorskip("fcntl")
    flushed = []

    def fsync(descriptor):
        flushed.append(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE)

    monkeypatch.setattr(os, "fsync", fsync)
    state.save(tmp_path, compiled(0), Progress(1))
    assert flushed
    assert os.O_RDONLY not in flushed


def test_damaged_checkpoints_take_no_place(tmp_path):
    """Those that are saved after them, at lower steps, are kept."""
    model = compiled(0)
    for step in (10, 11, 12):
        state.save(tmp_path, model, Progress(step)).write_bytes(b"")
    assert state.restore(tmp_path, model) == Progress()
    for step in (1, 2, 3, 4):
        assert state.save(tmp_path, model, Progress(step)).exists()
    assert sorted(state.checkpoints(tmp_path)) == [2, 3, 4]


def test_what_was_just_saved_is_never_removed(tmp_path):
    model = compiled(0)
    for step in (10, 11, 12, 1):
        state.save(tmp_path, model, Progress(step))
    assert sorted(state.checkpoints(tmp_path)) == [1, 10, 11, 12]


@pytest.mark.parametrize("error", [ImportError, MemoryError, PermissionError])
def test_no_checkpoint_is_called_damaged_that_is_not(tmp_path, monkeypatch, error):
    def fail(path):
        raise error

    model = compiled(0)
    path = state.save(tmp_path, model, Progress(1))
    monkeypatch.setattr(state, "read", fail)
    with pytest.raises(error):
        state.restore(tmp_path, model)
    assert path.exists()


def test_another_model_s_checkpoint_is_refused(tmp_path):
    state.save(tmp_path, compiled(0), Progress(1))
    other = compiled(1, dims=(4, 6, 8, 12))
    before = arrays(other)
    with pytest.raises(ValueError, match=r"another model or optimizer.*step-0000000001\.safetensors.*model/"):
        state.restore(tmp_path, other)
    assert_equal(arrays(other), before)
