import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_cnv2
import training
from training.commands import exported
from training.commands.exported import export_saved
from training.commands.served import predict_in_new_process
from training.errors import TrainingError

ROOT = Path(__file__).parents[3]

EXPORT = """
import sys

import keras

from training.commands.exported import export_saved

assert keras.backend.backend() == "jax"
export_saved(*sys.argv[1:])
"""


@pytest.mark.slow
def test_on_jax_another_process_exports(tmp_path):
    model = keras_cnv2.ConvNeXtV2(depths=(1, 1, 1, 1), dims=(4, 6, 8, 10), input_shape=(32, 32, 3), classes=3)
    model.save(tmp_path / "model.keras")
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", EXPORT, "model.keras", "saved"]
    process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    answers = predict_in_new_process(tmp_path / "saved", images)
    np.testing.assert_allclose(answers, keras.ops.convert_to_numpy(model(images)), atol=1e-5)


def test_its_failure_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    program = tmp_path / "program"
    program.write_text('#!/bin/sh\necho "$@ with $KERAS_BACKEND" >&2\nexit 1\n')
    program.chmod(0o700)
    monkeypatch.setattr(exported.sys, "executable", str(program))
    message = r"(?s)cannot be exported. Received:\n.* export .*model.keras --to saved_model .* with tensorflow"
    with pytest.raises(TrainingError, match=message):
        export_saved("model.keras", tmp_path / "saved")


def test_without_tensorflow_the_quickstart_does_not_begin(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "tensorflow" else find(name))
    with pytest.raises(ImportError, match='SavedModel at the end .* pip install "tensorflow"'):
        training.quickstart(runs=tmp_path)
    assert not [*tmp_path.iterdir()]


def test_what_the_end_needs_is_looked_for_at_the_start(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'sklearn'.*keras_cnv2\[train\]"):
        training.finetune(data="digits", runs=tmp_path)
    assert not [*tmp_path.iterdir()]
