"""Analyse models: diversity of channels, class selectivity, Grad-CAM."""

from pathlib import Path

import numpy as np

from keras_cnv2.fcmae import FCMAE
from keras_cnv2.images.pictures import check_resize
from keras_cnv2.models.backbone import ConvNeXtV2Backbone
from keras_cnv2.models.classifier import ConvNeXtV2
from keras_cnv2.models.pictures import framing_of
from keras_cnv2.restore import restore_model
from keras_cnv2.terminal import printable

from ..analysis.models import explain, measure, stage_maps
from ..data.images.sources import open_source
from ..drawing.analysis import activations, distances, grad_cams, selectivity
from ..errors import RecipeError
from ..evaluation.classification import check_channels
from ..files import write_json
from .evaluation import Evaluation, add_picture_options, completed
from .run_options import Outcome, folder_of
from .scaling import SCALING
from .values import converter, folder_name, positive_int
from .weights import weights_of

# Number of images shown in the Grad-CAM figure.
SHOWN = 6


def add_arguments(parser):
    parser.add_argument("weights", nargs="*", metavar="WEIGHTS", help="runs' folders, published tags or files")
    parser.add_argument("--config", metavar="FILE", help="config.json of a run, whose weights and data are taken")
    parser.add_argument("--model", help="the size that published tags are for")
    parser.add_argument("--data", help="as in `evaluate`")
    parser.add_argument(
        "--labels", type=converter(bool), nargs="?", const=True, default=True, help="whether data have classes"
    )
    parser.add_argument("--no-labels", dest="labels", action="store_false", help="the same as --labels false")
    parser.add_argument("--images", type=positive_int, default=1000, help="how many at most (default: %(default)s)")
    parser.add_argument("--image-size", type=positive_int, help="by default that of the first weights, or 224")
    parser.add_argument("--resize", choices=("crop", "squash"), help="by default that of the first weights")
    parser.add_argument("--batch-size", type=positive_int, default=32, help="(default: %(default)s)")
    add_picture_options(parser)
    parser.add_argument("--name", type=folder_name, default="analysis", help="folder's name (default: %(default)s)")
    parser.add_argument("--runs", default="runs", help="folder of all runs (default: %(default)s)")


def outcome(args):
    """Runs the command. Returns the `Outcome`; its metrics are the content of analysis.json."""
    reading = "max_unreadable", "exif_orientation", "max_pixels", *SCALING
    given = {name: getattr(args, name) for name in ("data", "model", "image_size", "resize", "batch_size", *reading)}
    given = completed({**given, "weights": args.weights}, args.config)
    weights = given.pop("weights")
    models = [weights] if isinstance(weights, str) else weights
    folder = folder_of(args)
    return Outcome(folder, run(models, folder, args.images, args.labels, **given))


def main(args):
    folder, found = outcome(args)
    width = max(map(len, found))
    for name, figures in found.items():
        print(f"{printable(name):<{width}}  cosine distance {_mean(figures['cosine_distance'])}", end="")
        selective = {block: value["mean"] for block, value in figures.get("class_selectivity", {}).items()}
        print(f", class selectivity {_mean(selective)}" if selective else "")
    print(f"pictures: {printable(folder)}")


def _mean(values):
    first, *_, last = values.values()
    return f"{np.mean([*values.values()]):.3f} ({first:.3f} in the first block, {last:.3f} in the last)"


def run(weights, folder, images=1000, labelled=True, **evaluation):
    """Analyses several models with the same images.

    Writes analysis.json, cosine_distance.png and activations.png; with labels also selectivity.png, and for classifiers
    grad_cam.png.

    Args:
        weights: List of weights as for `training evaluate`: classifiers, backbones, or FCMAE models, whose encoder gets
            unmasked images.
        folder: Path of the folder to write to.
        images: Int, the maximum number of images.
        labelled: Bool, whether the data have classes.
        **evaluation: Further fields of `training.commands.evaluation.Evaluation`.

    Returns:
        The content of analysis.json: a dict from the models' names to their measurements, by block.

    Raises:
        RecipeError: If a model and the data do not fit each other.
    """
    check_resize(evaluation.get("resize"))
    models = _restored(weights, evaluation)
    source, recipe = _opened(models, weights, labelled, evaluation)
    for model in models.values():
        check_channels(model, source, recipe.data)
    source.look(folder.parent)
    count = min(images, source.validation_size or source.size)
    with source.clear_errors():
        images, labels = source.examples(recipe, count, labelled=True)
    classes = source.class_names if labelled else None
    if classes and len(np.unique(labels)) < 2:
        raise RecipeError(f"data must have images of two classes or more, or --no-labels. Received: {recipe.data}")
    folder.mkdir(parents=True, exist_ok=True)
    number = len(classes) if classes else 0
    found = {name: measure(name, model, images, labels, number, recipe.batch_size) for name, model in models.items()}
    _draw(folder, models, images, found)
    figures = {name: _figures(*measured) for name, measured in found.items()}
    write_json(folder / "analysis.json", figures)
    return figures


def _restored(weights, evaluation):
    models = {}
    for name in weights:
        given = Evaluation(**{**evaluation, "weights": name})
        model = restore_model(weights_of(given, ("classifier.keras", "fcmae.keras")), given.model, any_size=True)
        if not isinstance(model, (ConvNeXtV2, ConvNeXtV2Backbone, FCMAE)):
            raise RecipeError(
                "weights must be of a classifier, a backbone or an FCMAE, not of a head of your own. "
                f"Received: {name} with a {type(model).__name__}"
            )
        models[short_name(name, models)] = model
    return models


def short_name(weights, others):
    """Returns a model's name in figures: the last part of its path, or more parts if that name is taken."""
    parts = Path(weights).parts
    names = ("/".join(parts[-length:]) for length in range(1, len(parts) + 1))
    return next((name for name in names if name not in others), f"{weights} ({len(others) + 1})")


def _opened(models, weights, labelled, evaluation):
    """Returns the data source, and the `Evaluation` that defines how pictures become images."""
    first = next(iter(models.values()))
    size, resize = framing_of(first, evaluation.get("image_size"), evaluation.get("resize"))
    recipe = Evaluation(**{**evaluation, "weights": weights[0], "image_size": size, "resize": resize})
    return open_source(recipe, labelled=labelled), recipe


def _draw(folder, models, images, found):
    distances(folder / "cosine_distance.png", {name: means for name, (means, _) in found.items()})
    if any(indices for _, indices in found.values()):
        selectivity(folder / "selectivity.png", {name: indices for name, (_, indices) in found.items()})
    maps = {name: stage_maps(model, images[0]) for name, model in models.items()}
    activations(folder / "activations.png", images[0], maps)
    classifiers = {n: model for n, model in models.items() if isinstance(model, ConvNeXtV2) and model.include_top}
    if explained := {name: explain(model, images[:SHOWN]) for name, model in classifiers.items()}:
        maps, told = ({name: pair[part] for name, pair in explained.items()} for part in (0, 1))
        grad_cams(folder / "grad_cam.png", images[:SHOWN], maps, told)


def _figures(distances, selectivity):
    figures = {"cosine_distance": distances}
    if selectivity:
        parts = ("mean", np.mean), ("median", np.median)
        figures["class_selectivity"] = {
            block: {name: float(part(values)) for name, part in parts} for block, values in selectivity.items()
        }
    return figures
