"""keras_cnv2 on TensorFlow."""

import keras
import numpy as np

import keras_cnv2
from benchmarks.adamw import EPSILON, LEARNING_RATE, WEIGHT_DECAY
from benchmarks.classifier import classifier
from benchmarks.graphs import graph


def inference(task, folded=False):
    """Logits; `folded` by `keras_cnv2.fold`."""
    made = classifier(task)
    if folded:
        from keras_cnv2 import fold

        made = fold(made)
    return graph(made, task.images())


def training(task):
    """A step of `fit`. Returns its loss."""
    made = classifier(task)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile(keras_cnv2.LayerDecayAdamW(LEARNING_RATE, WEIGHT_DECAY, epsilon=EPSILON), loss)
    images, labels = task.images(), task.labels()
    return lambda: np.asarray(made.train_on_batch(images, labels))
