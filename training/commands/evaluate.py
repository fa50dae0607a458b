"""Evaluate a classifier on labelled images: top-1, top-5, accuracy of each class, images per second."""

import logging
from dataclasses import asdict, replace
from pathlib import Path

from keras_cnv2.commands.predict import read_class_names
from keras_cnv2.files import check_target
from keras_cnv2.images.pictures import check_resize
from keras_cnv2.models.heads import classes_of
from keras_cnv2.models.pictures import framing_of
from keras_cnv2.restore import restore_model

from ..data.images.sources import open_source
from ..distribute.devices import ONE_DEVICE
from ..errors import RecipeError
from ..evaluation import tables
from ..evaluation.classification import check_channels, evaluate
from ..files import write_json
from ..recipes.fields import check_scale
from ..runs.machine import versions
from .evaluation import Evaluation, add_picture_options, completed
from .run_options import add_device_options, devices_of
from .scaling import run_of
from .values import positive_int
from .weights import weights_of

logger = logging.getLogger(__name__)


def add_arguments(parser):
    parser.add_argument("--config", metavar="FILE", help="config.json of a run, whose weights and data are taken")
    parser.add_argument("--weights", help="a run's folder, a published tag or a file")
    parser.add_argument("--model", help="the size that a published tag is for")
    parser.add_argument("--data", help="as in `finetune`; its validation split, or all of it")
    parser.add_argument("--image-size", type=positive_int, help="by default that of the weights")
    parser.add_argument("--resize", choices=("crop", "squash"), help="by default that of the weights")
    parser.add_argument("--class-names", metavar="FILE", help="the weights' classes, one per line (default: their own)")
    parser.add_argument("--batch-size", type=positive_int, default=64, help="(default: %(default)s)")
    parser.add_argument(
        "--mirrored", action="store_true", help="score the mean of each image and its mirror image as well"
    )
    parser.add_argument("--json", metavar="FILE", help="also write the scores to this JSON file")
    add_picture_options(parser)
    add_device_options(parser)


def outcome(args):
    """Runs the command. Returns the scores; `None` on all workers except the chief."""
    given = {name: value for name, value in vars(args).items() if name in Evaluation.__dataclass_fields__}
    devices = devices_of(args)
    with devices.clear_errors():
        with devices.agreement():
            if args.json and devices.is_chief:
                check_target(Path(args.json))  # fail before the evaluation, which may take long
        scores = run(Evaluation(**completed(given, args.config)), devices)
    if not devices.is_chief:
        return None
    if args.json:
        write_json(Path(args.json), scores)
    return scores


def main(args):
    if scores := outcome(args):
        print(tables.classification(scores))


def run(evaluation, devices=ONE_DEVICE):
    """Evaluates a classifier on the validation split of a data set, or on all of it.

    Args:
        evaluation: `Evaluation`.
        devices: `training.distribute.devices.Devices`.

    Returns:
        A dict with "top1", "top5", "images", "images_per_second" and "classes", a dict from class names to their
        accuracies; with `mirrored`, also "mirrored", a dict with "top1" and "top5".

    Raises:
        RecipeError: If the weights are not those of a classifier, or its classes are not those of the data.
    """
    check_resize(evaluation.resize)
    check_scale(evaluation.scale, evaluation.mean, evaluation.deviation)
    devices.check_batch_size(evaluation.batch_size)
    with devices.agreement() as facts:
        weights = weights_of(evaluation, ("classifier.keras",))
        facts.update(evaluation=asdict(evaluation), versions=versions())
    with devices.scope():
        classifier = restore_model(weights, evaluation.model, any_size=True)
    if classes_of(classifier) is None:
        raise RecipeError(
            f"weights must be of a classifier; fine-tune these first. Received: weights={evaluation.weights}"
        )
    image_size, resize = framing_of(classifier, evaluation.image_size, evaluation.resize)
    if any(side not in (None, image_size) for side in classifier.input_shape[1:3]):
        raise RecipeError(
            f"image_size must be that of the weights' images, {classifier.input_shape[1:3]}. Received: {image_size}"
        )
    class_names = evaluation.class_names and read_class_names(evaluation.class_names)
    evaluation = replace(evaluation, image_size=image_size, resize=resize)
    with devices.agreement() as facts:
        source = open_source(evaluation)
        if devices.is_chief:
            run = run_of(evaluation.weights)
            source.look(run and run.parent)
        facts.update(images=source.validation_size, classes=source.class_names)
    if not source.validation_size:
        raise RecipeError(f"data must have pictures to evaluate on. Received: data={evaluation.data}")
    check_channels(classifier, source, evaluation.data)
    if not source.size and devices.is_chief:
        message = "no validation split: evaluated on all %d pictures, also on those that were trained on"
        logger.warning(message, source.validation_size)
    return evaluate(classifier, source, evaluation, evaluation.batch_size, devices, evaluation.mirrored, class_names)[0]
