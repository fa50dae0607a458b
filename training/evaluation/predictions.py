"""What a classifier is surest of, right and wrong."""

import collections
import itertools
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_cnv2.models.pictures import class_names

from ..data.compiled import compiled
from .classification import columns_of

# Pictures that are kept of each kind, and that are looked at: more of them would take long, and show no more.
KEPT, SEEN = 8, 2000


class Prediction(NamedTuple):
    """An image `(H, W, channels)` in 0..255, its class's name, and what it is taken for with which probability."""

    image: np.ndarray
    label: str
    predicted: str
    probability: float


def best_and_worst(classifier, source, recipe, batch_size, kept=KEPT, seen=SEEN):
    """Finds the surest right and the surest wrong predictions among some validation images of all classes.

    Args:
        classifier: A `keras_cnv2.ConvNeXtV2` with its top, which gives probabilities.
        source: A `training.data.source.Source` with validation images.
        recipe: What `source.validation` takes.
        batch_size: Int.
        kept: Int, how many of each kind.
        seen: Int, how many images are looked at, rounded up to whole batches.

    Returns:
        A dict of two lists of `Prediction`s: those that are right, the surest of each class before the second of any,
        and those that are wrong, the surest first.
    """
    columns = np.asarray(columns_of(source.class_names, classifier))
    # A classifier can know more classes than the data have.
    names = {**dict(enumerate(class_names(classifier))), **dict(zip(columns, source.class_names))}
    found = {True: [], False: []}
    # Not `classifier.predict`, which involves all workers: only the chief gets here.
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
    titles = {True: "right, and sure of it", False: "wrong, and sure of it"}
    return {titles[right]: entries for right, entries in found.items() if entries}


def _surest(prediction):
    return -prediction.probability


def _of_each_class(predictions):
    """The surest of each class, then the second of each, and so on: one easy class would fill all places."""
    before = collections.Counter()

    def rank(prediction):
        before[prediction.label] += 1
        return before[prediction.label]

    return sorted(sorted(predictions, key=_surest), key=rank)


def _batches(validation):
    """The batches of a `keras.utils.PyDataset` or of a dataset that is one already."""
    if isinstance(validation, keras.utils.PyDataset):
        return (validation[number] for number in range(validation.num_batches))
    return iter(validation)
