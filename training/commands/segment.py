"""Train and evaluate semantic segmentation, from an encoder's weights or from scratch."""

import keras_cnv2
from keras_cnv2.segmentation import ConfusionMatrix, PixelCrossentropy
from keras_cnv2.terminal import printable

from ..distribute.devices import ONE_DEVICE
from ..drawing.segmentation import iou_chart, segmentations
from ..evaluation import tables
from ..files import write_json
from ..loop.train import train
from ..models.build import is_exportable, new_backbone, new_segmenter
from ..recipes.segmentation import SEGMENTATION
from ..runs import results
from ..runs.folder import METRICS
from . import options
from .start import add_device_options, add_run_options, outcome_of, start_run

MODEL = "segmenter.keras"
EXAMPLES = 6


def add_arguments(parser):
    add_run_options(parser, "segment")
    add_device_options(parser)
    options.add_options(parser, SEGMENTATION, "scenes")


def outcome(args):
    """Runs the command. Returns the `Outcome`."""
    return outcome_of(run, SEGMENTATION, args)


def main(args):
    show(*outcome(args))


def show(folder, metrics):
    """Prints the results of a run."""
    if metrics:
        if "iou" in metrics:
            print(tables.segmentation(metrics))
        print(f"weights: {printable(folder / MODEL)}")


def run(recipe, folder, devices=ONE_DEVICE, new_encoder=new_backbone, finish=None, change=False):
    """Trains to the end of a recipe, resuming an interrupted run of it in the folder.

    Writes segmenter.keras (with `recipe.ema` the averaged weights), best.keras after each epoch that is the best so
    far, the folder saved_model, overlays.png, iou.png, learning_curves.png, metrics.json, the logs and the checkpoints.

    Args:
        recipe: `training.recipes.segmentation.Segmentation`.
        folder: Path of the run's folder.
        devices: `training.distribute.devices.Devices`.
        new_encoder: Function of recipe and weights that returns the encoder under the head.
        finish: "newest" or "best" to end the run with this checkpoint, without a further step.
        change: Whether a run may resume with another recipe, see `training.runs.folder.open_run`.

    Returns:
        The content of metrics.json, a dict; `None` on all workers except the chief.
    """
    # Imported here because they need TensorFlow, and other commands run without it.
    from ..data.scenes.sources import open_scenes
    from ..evaluation.segmentation import evaluate

    source, weights = start_run(recipe, folder, devices, open_scenes, finish=finish, change=change)
    names = source.class_names
    with devices.scope():
        model = new_segmenter(recipe, names, weights, new_encoder)
    progress = train(
        model,
        recipe,
        source,
        folder,
        loss=PixelCrossentropy(recipe.ignore_label),
        devices=devices,
        metrics=lambda: [ConfusionMatrix(len(names), recipe.ignore_label)],
        monitor="val_mean_iou",
        save_best=lambda: results.save(model, folder / results.BEST),
        finish=finish,
    )
    if devices.is_chief:
        results.save(model, folder / MODEL)
    scores = evaluate(model, source, recipe, devices) if source.validation_size else {}
    return devices.on_chief(lambda: _written(model, recipe, source, progress, folder, scores))


def _written(model, recipe, source, progress, folder, scores):
    """Writes all results of a run except its weights. Returns the content of metrics.json."""
    from ..evaluation.segmentation import examples

    results.draw_curves(progress.history, folder, ("loss", "mean_iou"))
    if scores:
        shown = examples(model, source, recipe, EXAMPLES)
        iou_chart(folder / "iou.png", scores["iou"], scores["mean_iou"])
        segmentations(folder / "overlays.png", *shown, source.class_names)
    if is_exportable(model):
        keras_cnv2.export_saved_model(model, folder / "saved_model", overwrite=True)
    if scores:
        results.save_best(model, progress, folder)
    metrics = results.summary(model, progress) | scores
    write_json(folder / METRICS, metrics)
    return metrics
