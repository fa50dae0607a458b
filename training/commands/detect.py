"""Train and evaluate object detection, from an encoder's weights or from scratch."""

import keras_cnv2
from keras_cnv2.detection import Detector
from keras_cnv2.detection.retinanet import require_keras_cv
from keras_cnv2.terminal import printable

from ..distribute.devices import ONE_DEVICE
from ..drawing.detection import average_precisions, detections
from ..evaluation import tables
from ..files import write_json
from ..loop.train import train
from ..models.build import is_exportable, new_backbone, new_retinanet
from ..recipes.detection import DETECTION
from ..runs import results
from ..runs.folder import METRICS
from . import options
from .start import add_device_options, add_run_options, outcome_of, start_run

MODEL = "detector.keras"
EXAMPLES = 6

# Average precision needs all detections, down to low scores.
LEAST_SCORE = 0.001


def add_arguments(parser):
    add_run_options(parser, "detect")
    add_device_options(parser)
    options.add_options(parser, DETECTION, "objects")


def outcome(args):
    """Runs the command. Returns the `Outcome`."""
    return outcome_of(run, DETECTION, args)


def main(args):
    show(*outcome(args))


def show(folder, metrics):
    """Prints the results of a run."""
    if metrics:
        if "AP" in metrics:
            print(tables.detection(metrics))
        print(f"weights: {printable(folder / MODEL)}")


def run(recipe, folder, devices=ONE_DEVICE, new_encoder=new_backbone, finish=None, change=False):
    """Trains to the end of a recipe, resuming an interrupted run of it in the folder.

    Writes detector.keras (with `recipe.ema` the averaged weights), best.keras after each epoch that is the best so
    far, the folder saved_model, detections.png, average_precisions.png, learning_curves.png, metrics.json, the logs and
    the checkpoints.

    Args:
        recipe: `training.recipes.detection.Detection`.
        folder: Path of the run's folder.
        devices: `training.distribute.devices.Devices`.
        new_encoder: Function of recipe and weights that returns the encoder under the head.
        finish: "newest" or "best" to end the run with this checkpoint, without a further step.
        change: Whether a run may resume with another recipe, see `training.runs.folder.open_run`.

    Returns:
        The content of metrics.json, a dict; `None` on all workers except the chief.
    """
    source, weights = start_run(recipe, folder, devices, _open_data, finish=finish, change=change)
    names = source.class_names
    with devices.scope():
        model = new_retinanet(recipe, names, weights, new_encoder)
    progress = train(
        model,
        recipe,
        source,
        folder,
        devices=devices,
        monitor="val_loss",
        save_best=lambda: results.save(model, folder / results.BEST),
        finish=finish,
        box_loss="smoothl1",
        classification_loss="focal",
    )
    if devices.is_chief:
        results.save(model, folder / MODEL)
    detector = Detector(model, recipe.nms, recipe.score_threshold, recipe.iou_threshold)
    scores = _scores(model, source, recipe, devices) if source.validation_size else {}
    return devices.on_chief(lambda: _written(detector, recipe, source, progress, folder, scores))


def _open_data(recipe):
    """Opens the data source of a run. Checks here, not after the training, that all packages are installed."""
    # Imported here because they need TensorFlow, and other commands run without it.
    from ..data.boxes.sources import open_boxes
    from ..evaluation.detection import require_pycocotools

    require_keras_cv()
    source = open_boxes(recipe)
    if source.validation_size:
        require_pycocotools()
    return source


def _scores(model, source, recipe, devices):
    """Returns COCO's metrics. Average precision also needs detections with low scores."""
    from ..evaluation.detection import evaluate

    unsure = Detector(model, recipe.nms, LEAST_SCORE, recipe.iou_threshold)
    return evaluate(unsure, source, recipe, recipe.step_batch, devices)


def _written(detector, recipe, source, progress, folder, scores):
    """Writes all results of a run except its weights. Returns the content of metrics.json."""
    model, names = detector.retinanet, source.class_names
    results.draw_curves(progress.history, folder, ("loss", "box_loss", "classification_loss"))
    if is_exportable(model):
        keras_cnv2.export_saved_model(detector, folder / "saved_model", image_size=recipe.image_size, overwrite=True)
    if scores:
        images, truths = source.examples(recipe, min(EXAMPLES, source.validation_size))
        found = detector.predict(images, verbose=0)
        detections(folder / "detections.png", images, truths, found, names)
        title = f"AP: {tables.percent(scores['AP'], 'no objects')}"
        average_precisions(folder / "average_precisions.png", scores["classes"], title)
        results.save_best(model, progress, folder)
    metrics = results.summary(model, progress) | scores
    write_json(folder / METRICS, metrics)
    return metrics
