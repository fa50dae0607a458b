"""Predicts with a SavedModel in a separate process that imports only TensorFlow and NumPy, not this package or Keras.

python -m training.commands.served SAVED_MODEL IMAGES.npy PREDICTIONS.npy
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np


def predict_in_new_process(saved_model, images):
    """Predicts with a SavedModel as a server would, in a new process that has only the exported files.

    Args:
        saved_model: Path of a classifier's folder, written by `keras_cnv2.export_saved_model`.
        images: Array, the model's input.

    Returns:
        The class probabilities, an array.

    Raises:
        RuntimeError: If the process fails; its output is in the message.
    """
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder) / "images.npy", Path(folder) / "predictions.npy"
        np.save(inputs, images)
        command = [sys.executable, "-m", __name__, str(Path(saved_model).resolve()), str(inputs), str(outputs)]
        process = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
        if process.returncode:
            raise RuntimeError(f"The exported model does not predict. Received:\n{process.stdout}{process.stderr}")
        return np.load(outputs)


def main(saved_model, images, predictions):
    import tensorflow as tf

    served = tf.saved_model.load(saved_model)
    answer = served.signatures["serving_default"](images=tf.constant(np.load(images), "float32"))
    np.save(predictions, answer["probabilities"].numpy())


if __name__ == "__main__":
    main(*sys.argv[1:])
