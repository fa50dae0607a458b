"""Evaluate a classifier on labelled images: top-1, top-5, accuracy of each class, images per second."""

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from keras_cnv2.commands.predict import read_class_names
from keras_cnv2.files import check_target
from keras_cnv2.images.header import MAX_PIXELS
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
from ..runs.folder import versions
from .config import read_config, value_of
from .scaling import SCALING, run_of, scaling_of
from .start import add_device_options, devices_of, positive_int, weights_of
from .values import converter

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Settings of an evaluation; the fields are those of a recipe.

    Args:
        data, weights, model, image_size, resize, batch_size, max_unreadable, exif_orientation, max_pixels, scale, mean,
            deviation: See `training.recipes.fields.Recipe`. Defaults of `image_size` and `resize` are those of the
            weights, else 224 and the paper's way. The weights' `resize` is used only with the weights' `image_size`.
        class_names: Path of a text file with the names of the weights' classes, one per line. By default the names in
            the weights, or those of the data, in their order.
        mirrored: Whether to score, in addition, the mean of the predictions for each image and its mirror image.
    """

    data: str
    weights: str
    model: str | None = None
    image_size: int | None = None
    resize: str | None = None
    class_names: str | None = None
    batch_size: int = 64
    mirrored: bool = False
    max_unreadable: float = 0.01
    exif_orientation: bool = True
    max_pixels: int = MAX_PIXELS
    scale: float | None = None
    mean: tuple[float, ...] | None = None
    deviation: tuple[float, ...] | None = None
    # Data without a validation split are evaluated as a whole.
    validation_share: float = 1.0
    train_share: float = 1.0
    seed: int = 0


# Fields that the evaluation of a run takes from its recipe, in addition to the scaling of values.
FROM_RUN = ("data", "image_size", "resize", "max_unreadable", "exif_orientation", "max_pixels")


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


def add_picture_options(parser):
    """Adds the options for reading pictures; their defaults are those of the run of `--config`."""
    parser.add_argument(
        "--exif-orientation",
        type=converter(bool),
        nargs="?",
        const=True,
        help="whether pictures are turned as their EXIF data say (default: true)",
    )
    parser.add_argument("--max-pixels", type=positive_int, help=f"in the largest picture (default: {MAX_PIXELS})")
    parser.add_argument(
        "--max-unreadable", type=converter(float), help="share of the pictures that may be unreadable (default: 0.01)"
    )
    for name, annotation in (("scale", float), ("mean", tuple[float, ...]), ("deviation", tuple[float, ...])):
        parser.add_argument(f"--{name}", type=converter(annotation), help="for an .npz file, as in `finetune`")


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


def completed(given, config=None):
    """Completes options with those of an earlier run.

    If the data are an .npz file and no scaling is given, the scaling is that of the run of `config`, else of the run
    that the (first) weights belong to.

    Args:
        given: Dict from the names of options to their values, `None` for options that were not given.
        config: Path of the run's config.json, or of its folder; `None` for no run.

    Raises:
        RecipeError: If weights or data are missing, or the run's configuration is damaged.
    """
    given = {name: value for name, value in given.items() if value not in (None, [])}
    if config:
        path = Path(config)
        given = {"weights": str(path if path.is_dir() else path.parent), **_of_run(config), **given}
    run = config or run_of(_first(given.get("weights")))
    if run and str(given.get("data")).endswith(".npz") and {*SCALING}.isdisjoint(given):
        given |= scaling_of(run)
    for name in ("weights", "data"):
        if not given.get(name):
            raise RecipeError(f"{name} must be given, or the config of a run. Received: neither")
    return given


def _first(weights):
    return weights[0] if isinstance(weights, list) else weights


def _of_run(config):
    earlier, fields = read_config(config), Evaluation.__dataclass_fields__
    taken = [name for name in FROM_RUN if earlier.get(name) is not None]
    return {name: value_of(name, earlier[name], fields[name].type, config) for name in taken}


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
