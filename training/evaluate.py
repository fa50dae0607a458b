"""Evaluate a classifier on labelled pictures: top-1, top-5, accuracy of each class, images a second."""

import logging
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import keras
import numpy as np
from keras import ops

from keras_cnv2.classes import imagenet_classes, imagenet_wnids
from keras_cnv2.models import ConvNeXtV2
from keras_cnv2.preprocessing import check_resize
from keras_cnv2.restore import restore_model
from training import runs
from training.callbacks import progress_bar
from training.commands import add_device_options, devices_of, positive_int, weights_of
from training.data.sources import open_source
from training.distribute.devices import ONE_DEVICE
from training.recipe import RecipeError

logger = logging.getLogger(__name__)

# More classes than this make no readable confusion matrix.
MAX_MATRIX = 50


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is evaluated; the fields are those of a recipe.

    Args:
        data, weights, model, image_size, resize, batch_size, max_unreadable: See `training.recipe.Recipe`. Image size
            and resizing are by default those of the weights, else 224 and the paper's way.
    """

    data: str
    weights: str
    model: str | None = None
    image_size: int | None = None
    resize: str | None = None
    batch_size: int = 64
    max_unreadable: float = 0.01
    # Of data without a validation split, everything is evaluated.
    validation_share: float = 1.0
    train_share: float = 1.0
    seed: int = 0


class Scores(keras.metrics.Metric):
    """Top-1, top-5 and each class's accuracy, exact over any number of batches and replicas.

    Args:
        columns: For each class of the labels, its number among the model's classes.
        classes: The number of the model's classes.

    Call arguments:
        y_true: One-hot labels `(N, len(columns))`.
        y_pred: Class scores `(N, classes)`.
        sample_weight: 1 for each sample that counts, 0 for each that does not `(N,)`; `None` if all do.
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


class Clock(keras.callbacks.Callback):
    """A progress bar, and the images a second from the end of the first batch on, when all is compiled.

    Args:
        images: Int, all images.
        batch_size: Int.
        visible: Bool, whether there is a bar.
    """

    def __init__(self, images, batch_size, visible=True):
        super().__init__()
        self.images = images
        self.batch_size = batch_size
        self.visible = visible
        self.images_per_second = None

    def on_test_begin(self, logs=None):
        self._bar = progress_bar(desc="evaluating", total=self.images, leave=False, disable=not self.visible)
        self._start = None

    def on_test_batch_end(self, batch, logs=None):
        self._bar.update(min((batch + 1) * self.batch_size, self.images) - self._bar.n)
        self._start = self._start or time.perf_counter()

    def on_test_end(self, logs=None):
        # All is computed by now, as `logs` hold numbers.
        if (rest := self.images - self.batch_size) > 0:
            self.images_per_second = rest / (time.perf_counter() - self._start)
        self._bar.close()


def add_arguments(parser):
    parser.add_argument("--weights", required=True, help="a run's folder, a published tag or a file")
    parser.add_argument("--model", help="the size that a published tag is for")
    parser.add_argument("--data", required=True, help="as in `finetune`: the validation split, or all there is")
    parser.add_argument("--image-size", type=positive_int, help="by default that of the weights")
    parser.add_argument("--resize", choices=("crop", "squash"), help="by default that of the weights")
    parser.add_argument("--batch-size", type=positive_int, default=64, help="(default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="where the figures go as well")
    add_device_options(parser)


def main(args):
    given = {name: value for name, value in vars(args).items() if name in Evaluation.__dataclass_fields__}
    devices = devices_of(args)
    with devices.clear_errors():
        scores = run(Evaluation(**given), devices)
    if devices.is_chief:
        print_scores(scores)
        if args.json:
            runs.write_json(Path(args.json), scores)


def run(evaluation, devices=ONE_DEVICE):
    """Evaluates a classifier on the validation split of a data set, or on all of it.

    Args:
        evaluation: `Evaluation`.
        devices: `training.distribute.devices.Devices`.

    Returns:
        A dict of figures: "top1", "top5", "images", "images_per_second" and "classes", a dict from the names of the
        classes to their accuracies.

    Raises:
        RecipeError: If there is no classifier in the weights, or its classes are not those of the data.
    """
    check_resize(evaluation.resize)
    devices.check_batch_size(evaluation.batch_size)
    with devices.agreement() as facts:
        weights = weights_of(evaluation, ("classifier.keras",))
        facts.update(evaluation=asdict(evaluation), versions=runs.versions())
    with devices.scope():
        classifier = restore_model(weights, evaluation.model)
    if not isinstance(classifier, ConvNeXtV2) or not classifier.include_top:
        raise RecipeError(
            f"weights must be of a classifier; fine-tune these first. Received: weights={evaluation.weights}"
        )
    image_size = evaluation.image_size or classifier.image_size or 224
    resize = evaluation.resize or (classifier.resize if image_size == classifier.image_size else None)
    evaluation = replace(evaluation, image_size=image_size, resize=resize)
    with devices.agreement() as facts:
        source = open_source(evaluation)
        facts.update(images=source.validation_size, classes=source.class_names)
    if not source.validation_size:
        raise RecipeError(f"data must have pictures to evaluate on. Received: data={evaluation.data}")
    check_channels(classifier, source, evaluation.data)
    if not source.size and devices.is_chief:
        logger.warning(
            "no validation split: all %d pictures, any that were trained on among them", source.validation_size
        )
    return evaluate(classifier, source, evaluation, evaluation.batch_size, devices)[0]


def check_channels(model, source, data):
    """Raises a `RecipeError` if a classifier, backbone or FCMAE cannot see the images of a source."""
    backbone = getattr(model, "backbone", model)
    if (channels := backbone.images.shape[-1]) != source.channels:
        raise RecipeError(
            f"data must have images of {channels} channels, as {model.name} has. "
            f"Received: data={data} with {source.channels}"
        )


def evaluate(classifier, source, recipe, batch_size, devices=ONE_DEVICE):
    """Evaluates a classifier on the validation images of a source.

    Args:
        classifier: A `keras_cnv2.ConvNeXtV2` with its top, made in the devices' scope; it is compiled anew.
        source: A source of data as `training.loop` describes it.
        recipe: What `source.validation` takes.
        batch_size: Int, images a step on all devices together.
        devices: `training.distribute.devices.Devices`.

    Returns:
        A dict of figures as `run` returns it, and the confusion matrix, rows are labels, as an array; `None` for more
        than 50 classes.
    """
    names = source.class_names
    with devices.scope():
        scores = Scores(columns_of(names, classifier), classifier.classes)
        classifier.compile(loss=_no_loss, weighted_metrics=[scores])
    clock = Clock(source.validation_size, batch_size, visible=devices.is_chief)
    validation = devices.batches(lambda share: source.validation(recipe, batch_size, share))
    with source.clear_errors():
        classifier.evaluate(validation, steps=-(-source.validation_size // batch_size), callbacks=[clock], verbose=0)
    images, correct = (ops.convert_to_numpy(v).astype(int) for v in (scores.images, scores.correct))
    total = int(images.sum())
    if not total:
        raise RecipeError("data must have pictures to evaluate on. Received: none that can be read")
    figures = {
        "top1": float(correct.sum() / total),
        "top5": float(ops.convert_to_numpy(scores.in_top5) / total),
        "images": total,
        "images_per_second": clock.images_per_second and round(clock.images_per_second, 1),
        # A class without a picture has no accuracy.
        "classes": {n: (float(c / i) if i else None) for n, c, i in zip(names, correct, images)},
    }
    return figures, None if scores.matrix is None else ops.convert_to_numpy(scores.matrix).astype(int)


def _no_loss(y_true, y_pred):
    """Keras wants one; labels and predictions may have different classes here."""
    return ops.zeros_like(y_pred[:, 0])


def columns_of(names, classifier):
    """The numbers that classes of these names have among the classifier's.

    ImageNet's folders are called by WordNet ids, the published classes by words.
    """
    ours = classifier.class_names or imagenet_classes()
    if tuple(ours) == imagenet_classes() and {*names} <= {*imagenet_wnids()}:
        ours = imagenet_wnids()
    unknown = [name for name in names if name not in ours]
    if unknown or len(ours) != classifier.classes:
        raise RecipeError(
            f"data must have classes that the weights know. Received: {len(unknown)} others, such as {unknown[:5]}; "
            f"the weights know {len(ours)}, such as {[*ours][:5]}"
        )
    return [ours.index(name) for name in names]


def print_scores(scores):
    """Prints what `run` returns."""
    rows = [(name, "no pictures" if a is None else f"{a:.2%}") for name, a in scores["classes"].items()]
    width = max(len(name) for name, _ in rows)
    print("\n".join(f"{name:<{width}}  {accuracy:>11}" for name, accuracy in rows))
    rate = scores["images_per_second"]
    print(f"top-1 {scores['top1']:.2%}, top-5 {scores['top5']:.2%} of {scores['images']} images", end="")
    print(f", {rate:.0f} images/s" if rate else "")
