"""One serving folder of a small model, for all tests of serving, and a quick stand-in for exporting it again."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

import keras_cnv2
from benchmarks.serving_session import SavedModelSession
from keras_cnv2.export.serving.export import export_serving
from tests.export.small import NAMES, classifier, encoded

SIZE = 64
MAX_PIXELS = 200_000
MAX_BATCH_SIZE = 8
FILES = {"config/models.config", "config/batching.config", "config/monitoring.config", "docker-compose.yml"}
FILES |= {"client.py", "README.md"}
SIGNATURES = {"serving_default", "serve_jpeg", "features"}


@functools.cache
def model():
    return classifier(input_shape=(SIZE, SIZE, 3))


@functools.cache
def folder():
    """Path of the folder, with version 1. To be read only."""
    parent = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, parent, ignore_errors=True)
    export_serving(model(), parent / "serving", max_batch_size=MAX_BATCH_SIZE, max_pixels=MAX_PIXELS)
    return parent / "serving"


def version():
    return folder() / "model" / "1"


@functools.cache
def session():
    """Version 1 in a session."""
    return SavedModelSession(version())


@functools.cache
def pictures():
    """Encoded pictures of which the model says different things."""
    kinds = ("JPEG", "PNG", "WEBP")
    return tuple(encoded(kind, array=_picture(seed, 70 + 10 * seed)) for seed in range(2) for kind in kinds)


def _picture(seed, height):
    """Pixels of one colour, with noise."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 30, (height, 90, 3))
    return np.clip(rng.uniform(0, 255, 3) + noise, 0, 255).astype("uint8")


@functools.cache
def expected():
    """The probabilities of the pictures, an array of the Keras model's."""
    images = np.stack([keras_cnv2.load_image(picture, SIZE) for picture in pictures()])
    return model().predict_on_batch(images)


def best(probabilities, top=5):
    """Names and probabilities, the most probable first."""
    return [(NAMES[index], probabilities[index]) for index in np.argsort(-probabilities)[:top]]


def copy_export(model, path, **options):
    """In the place of `export_saved_model`: the version that there is."""
    shutil.copytree(version(), path, ignore=shutil.ignore_patterns("tf_serving_warmup_requests"))


def warmup_records(path):
    from tensorflow_serving.apis import prediction_log_pb2

    file = path / "assets.extra" / "tf_serving_warmup_requests"
    for record in tf.compat.v1.io.tf_record_iterator(str(file)):
        yield prediction_log_pb2.PredictionLog.FromString(record).predict_log.request


def contents(path):
    """{name: bytes} of all files below a path, and of folders `None`; without the bytecode of a client that ran."""
    entries = (entry for entry in path.rglob("*") if "__pycache__" not in entry.parts)
    return {str(entry.relative_to(path)): entry.read_bytes() if entry.is_file() else None for entry in entries}


def rows(request):
    """Of its first input."""
    (tensor, *_) = request.inputs.values()
    return tensor.tensor_shape.dim[0].size
