"""Train semantic segmentation, from an encoder's weights or from scratch, and evaluate it."""

import keras_cnv2
from keras_cnv2.segmentation import ConfusionMatrix, PixelCrossentropy, UPerNet, deeplab_v3_plus
from training import loop, options, results, runs
from training.commands import add_device_options, add_run_options, devices_of, folder_of, start_run
from training.dense import is_exportable, new_backbone
from training.distribute.devices import ONE_DEVICE
from training.segmentation import pictures
from training.segmentation.recipes import SEGMENTATION

MODEL = "segmenter.keras"
EXAMPLES = 6


def add_arguments(parser):
    add_run_options(parser, "segment")
    add_device_options(parser)
    options.add_options(parser, SEGMENTATION, "scenes")


def main(args):
    recipe = options.chosen_recipe(args, SEGMENTATION)
    folder = folder_of(args)
    devices = devices_of(args)
    with devices.clear_errors():
        metrics = run(recipe, folder, devices)
    if metrics:
        print_scores(metrics)
        print(f"weights: {folder / MODEL}")


def print_scores(metrics):
    from training.segmentation.evaluate import table

    if "iou" in metrics:
        print(table(metrics))


def new_segmenter(recipe, class_names, weights=None, new_encoder=new_backbone):
    """The model that a recipe trains: logits `(N, H, W, classes)` of images `(N, H, W, 3)`."""
    backbone = new_encoder(recipe, weights)
    if recipe.head == "deeplab":
        return deeplab_v3_plus(backbone, len(class_names), class_names=class_names)
    return UPerNet(
        backbone, len(class_names), recipe.head_width, class_names=class_names, dtype=recipe.dtype, name="segmenter"
    )


def run(recipe, folder, devices=ONE_DEVICE, new_encoder=new_backbone):
    """Trains to the end of a recipe, going on if the folder has an interrupted run of it.

    Writes segmenter.keras (with `recipe.ema` the averaged weights), best.keras if another epoch was the best one, the
    folder saved_model, overlays.png, iou.png, learning_curves.png, metrics.json, the logs and the checkpoints.

    Args:
        recipe: `training.segmentation.recipes.Segmentation`.
        folder: Path of the run.
        devices: `training.distribute.devices.Devices`.
        new_encoder: From recipe and weights to the encoder under the head.

    Returns:
        What is in metrics.json, a dict; `None` on all workers but the chief.
    """
    # These need TensorFlow, without which other commands run.
    from training.segmentation.evaluate import evaluate
    from training.segmentation.sources import open_scenes

    source, weights = start_run(recipe, folder, devices, open_scenes)
    names = source.class_names
    with devices.scope():
        model = new_segmenter(recipe, names, weights, new_encoder)
    progress = loop.train(
        model,
        recipe,
        source,
        folder,
        loss=PixelCrossentropy(recipe.ignore_label),
        devices=devices,
        metrics=lambda: [ConfusionMatrix(len(names), recipe.ignore_label)],
        monitor="val_mean_iou",
    )
    if devices.is_chief:
        results.save(model, folder / MODEL)
    scores = evaluate(model, source, recipe, devices) if source.validation_size else {}
    return devices.on_chief(lambda: _written(model, recipe, source, progress, folder, scores))


def _written(model, recipe, source, progress, folder, scores):
    """Writes what a run leaves beside its weights. Returns what is in metrics.json."""
    from training.segmentation.evaluate import examples

    results.draw_curves(progress.history, folder, ("loss", "mean_iou"))
    if scores:
        shown = examples(model, source, recipe, EXAMPLES)
        pictures.iou_chart(folder / "iou.png", scores["iou"], scores["mean_iou"])
        pictures.segmentations(folder / "overlays.png", *shown, source.class_names)
    if is_exportable(model):
        keras_cnv2.export_saved_model(model, folder / "saved_model", overwrite=True)
    results.save_best(model, progress, folder)
    metrics = results.summary(model, progress) | scores
    runs.write_json(folder / runs.METRICS, metrics)
    return metrics
