"""Contestants of keras_cnv2: on TensorFlow, and exported to LiteRT and ONNX."""

import dataclasses
import itertools
import os
import tempfile
from pathlib import Path

import keras
import numpy as np

import keras_cnv2
from benchmarks.adamw import EPSILON, LEARNING_RATE, WEIGHT_DECAY
from benchmarks.classifier import classifier
from benchmarks.graphs import graph


def inference(task, folded=False):
    """Returns a function that computes logits; if `folded`, with a model from `keras_cnv2.fold`."""
    made = classifier(task)
    if folded:
        from keras_cnv2 import fold

        made = fold(made)
    return graph(made, task.images())


def litert(task):
    """Returns a function that computes logits with a float32 LiteRT file, with one thread per core."""
    from ai_edge_litert.interpreter import Interpreter

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        keras_cnv2.export_litert(classifier(task), path, batch=task.batch)
        interpreter = Interpreter(model_content=path.read_bytes(), num_threads=os.cpu_count())
    interpreter.allocate_tensors()
    images, (taken,), (given,) = task.images(), interpreter.get_input_details(), interpreter.get_output_details()

    def run():
        interpreter.set_tensor(taken["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(given["index"])

    run.peak = _unknown
    return run


def onnx(task):
    """Returns a function that computes logits with an ONNX file in ONNX Runtime."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        keras_cnv2.export_onnx(classifier(task), path)
        session = onnxruntime.InferenceSession(path)
    images = task.images()

    def run():
        return session.run(None, {"images": images})[0]

    run.peak = _unknown
    return run


def _unknown():
    """Reports the peak memory as unknown: the peak of this process is that of the conversion."""


def training(task, dtype=None):
    """Returns a function that makes a step of `fit` under a Keras dtype policy and returns its loss."""
    made = classifier(task, dtype)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile(keras_cnv2.LayerDecayAdamW(LEARNING_RATE, WEIGHT_DECAY, epsilon=EPSILON), loss)
    images, labels = task.images(), task.labels()
    return lambda: np.asarray(made.train_on_batch(images, labels))


def small_pictures(task):
    """Returns a function that loads a batch of augmented small images with the array pipeline of `training`."""
    from training.data.images.arrays import Arrays, Split
    from training.data.images.augment import Augmentation
    from training.recipes.images import FINETUNING

    images = np.random.default_rng(0).integers(0, 256, (8 * task.batch, task.image_size, task.image_size, 3), "uint8")
    labels = np.random.default_rng(1).integers(0, task.classes, len(images), "int32")
    recipe = dataclasses.replace(
        FINETUNING["cifar10_short"], batch_size=task.batch, crop_area=(1.0, 1.0), shift=3, alternate_flip=True
    )
    source = Arrays(Split(images, labels), None, map(str, range(task.classes)))
    batches = source.training(recipe, augmentation=Augmentation(task.classes, cutout=8, label_smoothing=0.1))
    numbers = itertools.count()
    return lambda: batches[next(numbers)][0]
