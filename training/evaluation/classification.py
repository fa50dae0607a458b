"""Scores of a classifier on labelled images. Imports no TensorFlow."""

import logging

import keras
import numpy as np
from keras import ops

from keras_cnv2.checkpoints.metadata import own_statistics
from keras_cnv2.images.classes import imagenet_classes, imagenet_wnids, numbered
from keras_cnv2.images.normalization import Preprocessing
from keras_cnv2.models.classifier import ConvNeXtV2
from keras_cnv2.models.heads import channels_of, classes_of, takes_pixels
from keras_cnv2.models.pictures import PICTURE_CHANNELS

from ..distribute.devices import ONE_DEVICE
from ..errors import RecipeError
from .speed import Speed

logger = logging.getLogger(__name__)

# Maximum number of classes for a readable confusion matrix.
MAX_MATRIX = 50


class Scores(keras.metrics.Metric):
    """Counts top-1, top-5 and each class's accuracy, exactly over any number of batches and replicas.

    Args:
        columns: For each class of the labels, its index among the model's classes.
        classes: Number of the model's classes.

    Call arguments:
        y_true: One-hot labels `(N, len(columns))`.
        y_pred: Class scores `(N, classes)`.
        sample_weight: `(N,)`, 1 for samples that count and 0 for padding; `None` if all count.
    """

    def __init__(self, columns, classes, name="scores"):
        super().__init__(name=name)
        self.columns = np.asarray(columns)
        self.classes = classes

        def counts(name, *shape):
            return self.add_variable(shape, "zeros", dtype="float32", name=name)

        self.images = counts("images", len(columns))
        self.correct = counts("correct", len(columns))
        self.in_top5 = counts("in_top5")
        self.matrix = counts("matrix", classes, classes) if classes <= MAX_MATRIX else None

    def update_state(self, y_true, y_pred, sample_weight=None):
        y_true = ops.cast(y_true, "float32")
        labels = ops.take(self.columns, ops.argmax(y_true, axis=-1))
        predictions = ops.argmax(y_pred, axis=-1)
        counts = ops.ones(ops.shape(labels)) if sample_weight is None else ops.cast(sample_weight, "float32")
        hits = counts * ops.cast(ops.equal(labels, ops.cast(predictions, labels.dtype)), "float32")
        self.images.assign_add(ops.sum(y_true * ops.expand_dims(counts, -1), axis=0))
        self.correct.assign_add(ops.sum(y_true * ops.expand_dims(hits, -1), axis=0))
        top5 = ops.in_top_k(labels, y_pred, k=min(5, self.classes))
        self.in_top5.assign_add(ops.sum(counts * ops.cast(top5, "float32")))
        if self.matrix is not None:
            rows, columns = (ops.one_hot(numbers, self.classes) for numbers in (labels, predictions))
            self.matrix.assign_add(ops.matmul(ops.transpose(rows * ops.expand_dims(counts, -1)), columns))

    def result(self):
        return ops.sum(self.correct) / ops.maximum(ops.sum(self.images), 1)

    def reset_state(self):
        for variable in self.variables:
            variable.assign(ops.zeros(variable.shape))


def check_channels(model, source, data):
    """Raises a `RecipeError` if the images of a source do not have the channels of a classifier, backbone or FCMAE."""
    if (channels := channels_of(model)) != source.channels:
        raise RecipeError(
            f"data must have images of {channels} channels, as {model.name} has. "
            f"Received: data={data} with {source.channels}"
        )


def both_ways(classifier):
    """Returns a model whose output is the mean of a classifier's outputs for an image and for its mirror image."""
    images = keras.Input(classifier.input_shape[1:])
    return keras.Model(images, (classifier(images) + classifier(ops.flip(images, axis=2))) / 2, name="both_ways")


def evaluate(classifier, source, recipe, batch_size, devices=ONE_DEVICE, mirrored=False, class_names=None):
    """Evaluates a classifier on the validation images of a source.

    Args:
        classifier: A `keras_cnv2.ConvNeXtV2` with its top, or a model with another head that outputs one row for each
            image, created in the devices' scope. It is compiled anew.
        source: A `training.data.source.Source`.
        recipe: The `recipe` argument of `source.validation`.
        batch_size: Int, the number of images in a step on all devices together.
        devices: `training.distribute.devices.Devices`.
        mirrored: Bool, whether to score, in addition, the mean of the outputs for each image and its mirror image.
        class_names: Optional list of strings, the classifier's classes. By default its own.

    Returns:
        A dict as returned by `training.commands.evaluate.run`, and the confusion matrix as an array whose rows are
        labels, or `None` for more than 50 classes.
    """
    names = source.class_names
    columns = columns_of(names, classifier, class_names)
    classes = classes_of(classifier)
    with devices.scope():
        classifier = of_pictures(classifier)

    def scored(model):
        with devices.scope():
            scores = Scores(columns, classes)
            model.compile(loss=_no_loss, weighted_metrics=[scores])
        validation = devices.batches(lambda share: source.validation(recipe, batch_size, share))
        with source.clear_errors(), Speed(source.validation_size, devices.is_chief) as speed:
            count = keras.callbacks.LambdaCallback(on_test_batch_end=lambda batch, logs: speed.step(batch_size))
            model.evaluate(validation, steps=-(-source.validation_size // batch_size), callbacks=[count], verbose=0)
        return scores, speed

    scores, speed = scored(classifier)
    images, correct = (ops.convert_to_numpy(v).astype(int) for v in (scores.images, scores.correct))
    total = int(images.sum())
    if not total:
        raise RecipeError("data must have pictures to evaluate on. Received: none that can be read")
    figures = _top(scores, total)
    if mirrored:
        with devices.scope():
            both = both_ways(classifier)
        figures["mirrored"] = _top(scored(both)[0], total)
    figures |= {
        "images": total,
        "images_per_second": speed.rate(total, batch_size),
        # A class without pictures has no accuracy.
        "classes": {n: (float(c / i) if i else None) for n, c, i in zip(names, correct, images)},
    }
    return figures, None if scores.matrix is None else ops.convert_to_numpy(scores.matrix).astype(int)


def _top(scores, total):
    """Returns top-1 and top-5 accuracy over `total` images."""
    counts = {"top1": ops.sum(scores.correct), "top5": scores.in_top5}
    return {name: float(ops.convert_to_numpy(count)) / total for name, count in counts.items()}


def of_pictures(model):
    """Returns a model from images in 0..255 to one row of numbers per image: the given model, wrapped if necessary."""
    normalizes = not takes_pixels(model) and channels_of(model) in PICTURE_CHANNELS
    if isinstance(model, ConvNeXtV2) and not normalizes:
        return model
    images = keras.Input(model.input_shape[1:])
    (row,) = keras.tree.flatten(model(Preprocessing(*own_statistics(model))(images) if normalizes else images))
    return keras.Model(images, row, name=model.name)


def _no_loss(y_true, y_pred):
    """A loss of zero: Keras requires a loss, but labels and predictions may have different classes here."""
    return ops.zeros_like(y_pred[:, 0])


def columns_of(names, classifier, class_names=None):
    """Returns the indices of the data's classes among the classifier's classes.

    ImageNet's folders are named after WordNet ids, the published classes by words; both match. If a classifier has no
    class names but as many classes as the data, the classes are assumed to be the same, and a warning is logged.

    Args:
        names: Names of the data's classes.
        classifier: The model.
        class_names: Optional list of strings, the classifier's classes. By default its own.

    Returns:
        A list of ints, one for each of `names`.

    Raises:
        RecipeError: If the classifier lacks some of these classes, or has a single class.
    """
    classes = classes_of(classifier)
    if classes == 1:
        raise RecipeError(
            "the weights must be a classifier of 2 classes or more, as the accuracy with one class is always 1. "
            f"Received: {classifier.name} with classes=1"
        )
    ours = class_names or getattr(classifier, "class_names", None)
    if ours is None and classes == len(names):
        logger.warning("%s has no class names: those of the data are used, in their order", classifier.name)
        return [*range(classes)]
    ours = ours or imagenet_classes()
    if {*names} <= {*numbered(classes)} and tuple(ours) == tuple(map(str, range(classes))):
        ours = numbered(classes)  # earlier versions called unnamed classes "0", "1", ...
    if tuple(ours) == imagenet_classes() and {*names} <= {*imagenet_wnids()}:
        ours = imagenet_wnids()
    unknown = [name for name in names if name not in ours]
    if unknown or len(ours) != classes:
        raise RecipeError(
            f"data must have classes that the weights know. Received: {len(unknown)} others, such as {unknown[:5]}; "
            f"the weights know {len(ours)}, such as {[*ours][:5]}"
        )
    return [ours.index(name) for name in names]
