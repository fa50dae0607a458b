"""Exports a run's saved model with TensorFlow; if Keras has another backend, in a separate process."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras

from keras_cnv2 import export_saved_model

from ..errors import TrainingError

EXPORT = "import sys; from keras_cnv2.commands.main import main; sys.exit(main(sys.argv[1:]))"


def require_tensorflow():
    """Raises an `ImportError` if TensorFlow is missing. Call this before training, since the export comes after it."""
    if importlib.util.find_spec("tensorflow") is None:
        raise ImportError(
            'The SavedModel at the end is made with TensorFlow, on any backend of Keras: pip install "tensorflow"'
        )


def export_saved(model, folder):
    """Exports a classifier as a SavedModel, replacing an existing one.

    Args:
        model: Path of the `.keras` file.
        folder: Path of the folder to write.

    Raises:
        TrainingError: If the exporting process fails; its output is in the message.
    """
    if keras.backend.backend() == "tensorflow":
        export_saved_model(keras.saving.load_model(model), folder, overwrite=True)
        return
    paths = str(Path(model).resolve()), "--to", "saved_model", "--out", str(Path(folder).resolve())
    process = subprocess.run(
        [sys.executable, "-c", EXPORT, "export", *paths, "--overwrite"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
    )
    if process.returncode:
        raise TrainingError(f"The model cannot be exported. Received:\n{process.stdout}{process.stderr}")
