"""Selects a classifier's most confident right and wrong predictions."""

import collections
import itertools
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_cnv2.models.pictures import class_names

from ..data.compiled import compiled
from .classification import columns_of

# Number of predictions kept of each kind, and number of images predicted: more would take longer without showing more.
KEPT, SEEN = 8, 2000


class Prediction(NamedTuple):
    """An image `(H, W, channels)` in 0..255, its class's name, the predicted class's name and its probability."""

    image: np.ndarray
    label: str
    predicted: str
    probability: float


def best_and_worst(classifier, source, recipe, batch_size, kept=KEPT, seen=SEEN):
    """Finds the most confident right and wrong predictions among some validation images of all classes.

    Args:
        classifier: A `keras_cnv2.ConvNeXtV2` with its top, which outputs probabilities.
        source: A `training.data.source.Source` with validation images.
        recipe: The `recipe` argument of `source.validation`.
        batch_size: Int.
        kept: Int, the maximum number of predictions of each kind.
        seen: Int, the number of images to predict, rounded up to full batches.

    Returns:
        A dict from titles to lists of `Prediction`s: right ones, beginning with the most confident one of each class;
        and wrong ones, the most confident first. An empty list is left out.
    """
    columns = np.asarray(columns_of(source.class_names, classifier))
    # A classifier may have more classes than the data.
    names = {**dict(enumerate(class_names(classifier))), **dict(zip(columns, source.class_names))}
    found = {True: [], False: []}
    # Not `classifier.predict`, which involves all workers: only the chief runs this.
    predict = compiled(lambda images: classifier(images, training=False))
    with source.clear_errors():
        for images, targets, weights in itertools.islice(
            _batches(source.validation(recipe, batch_size, mixed=True)), -(-seen // batch_size)
        ):
            probabilities = ops.convert_to_numpy(predict(images))
            images, targets, weights = map(ops.convert_to_numpy, (images, targets, weights))
            labels, best = columns[targets.argmax(-1)], probabilities.argmax(-1)
            for place in np.flatnonzero(weights):
                label, predicted = labels[place], best[place]
                probability = float(probabilities[place, predicted])
                entry = Prediction(images[place], names[label], names[predicted], probability)
                found[bool(label == predicted)].append(entry)
            found = {True: _of_each_class(found[True])[:kept], False: sorted(found[False], key=_surest)[:kept]}
    titles = {True: "correct, most confident", False: "wrong, most confident"}
    return {titles[right]: entries for right, entries in found.items() if entries}


def _surest(prediction):
    return -prediction.probability


def _of_each_class(predictions):
    """Sorts predictions: first the most confident one of each class, then the second of each, and so on.

    Otherwise one easy class could take all places.
    """
    before = collections.Counter()

    def rank(prediction):
        before[prediction.label] += 1
        return before[prediction.label]

    return sorted(sorted(predictions, key=_surest), key=rank)


def _batches(validation):
    """Returns an iterator over the batches of a `keras.utils.PyDataset` or `tf.data.Dataset`."""
    if isinstance(validation, keras.utils.PyDataset):
        return (validation[number] for number in range(validation.num_batches))
    return iter(validation)
