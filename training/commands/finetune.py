"""Train a classifier from an FCMAE run, from published weights, from a file, or from scratch."""

import logging

import keras

from keras_cnv2.models.pictures import PICTURE_CHANNELS
from keras_cnv2.terminal import printable

from ..data.images.augment import Augmentation
from ..distribute.devices import ONE_DEVICE
from ..drawing.runs import confusion_matrix, predictions
from ..evaluation import tables
from ..evaluation.classification import evaluate
from ..evaluation.predictions import best_and_worst
from ..files import write_json
from ..loop.train import classifier_metrics, train
from ..models.build import described_classifier, freeze_encoder, new_classifier, with_softmax, without_grn
from ..recipes.images import FINETUNING
from ..runs import results
from ..runs.folder import METRICS
from . import options
from .start import add_device_options, add_run_options, outcome_of, start_run

logger = logging.getLogger(__name__)

MODEL = "classifier.keras"


def add_arguments(parser):
    add_run_options(parser, "finetune")
    add_device_options(parser)
    options.add_options(parser, FINETUNING, "images")


def outcome(args):
    """Runs the command. Returns the `Outcome`."""
    return outcome_of(run, FINETUNING, args)


def main(args):
    show(*outcome(args))


def show(folder, metrics):
    """Prints the results of a run."""
    if metrics is None:
        return
    if "top1" in metrics:
        print(tables.classification(metrics))
    print(f"weights: {printable(folder / MODEL)}")


def run(recipe, folder, devices=ONE_DEVICE, finish=None, change=False):
    """Trains to the end of a recipe, resuming an interrupted run of it in the folder.

    Writes classifier.keras (with `recipe.ema` the averaged weights), best.keras after each epoch that is the best so
    far, learning_curves.png, confusion_matrix.png, predictions.png, metrics.json, the logs and the checkpoints.

    Args:
        recipe: `training.recipes.fields.Finetuning`.
        folder: Path of the run's folder.
        devices: `training.distribute.devices.Devices`.
        finish: "newest" or "best" to end the run with this checkpoint, without a further step.
        change: Whether a run may resume with another recipe, see `training.runs.folder.open_run`.

    Returns:
        The content of metrics.json, a dict; `None` on all workers except the chief.
    """
    source, weights = start_run(recipe, folder, devices, finish=finish, change=change)
    with devices.scope():
        classifier = new_classifier(recipe, source.channels, source.class_names, weights)
    if recipe.frozen:
        freeze_encoder(classifier)
    if not recipe.grn:
        without_grn(classifier)
    progress = train(
        classifier,
        recipe,
        source,
        folder,
        augmentation=Augmentation(
            classes=len(source.class_names),
            rand_augment=_rand_augment(recipe, source.channels),
            rand_augment_std=recipe.rand_augment_std,
            erasing=recipe.erasing,
            cutout=recipe.cutout,
            label_smoothing=recipe.label_smoothing,
            mixup=recipe.mixup,
            cutmix=recipe.cutmix,
        ),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        devices=devices,
        metrics=classifier_metrics,
        monitor="val_accuracy",
        save_best=lambda: results.save(with_softmax(classifier, recipe), folder / results.BEST),
        finish=finish,
        described=described_classifier(classifier),
    )
    with devices.scope():
        trained = with_softmax(classifier, recipe)
    if devices.is_chief:
        results.save(trained, folder / MODEL)  # before evaluation compiles the model
    found = evaluate(trained, source, recipe, recipe.step_batch, devices) if source.validation_size else ({}, None)
    return devices.on_chief(lambda: _written(classifier, trained, recipe, source, progress, folder, devices, *found))


def _rand_augment(recipe, channels):
    """Returns the recipe's magnitude of RandAugment; 0, with a warning, for channels that RandAugment cannot take."""
    if recipe.rand_augment and channels not in PICTURE_CHANNELS:
        logger.warning("images of %d channels: training without RandAugment, which needs 1 or 3", channels)
        return 0.0
    return recipe.rand_augment


def _written(classifier, trained, recipe, source, progress, folder, devices, scores, matrix):
    """Writes all results of a run except its weights. Returns the content of metrics.json."""
    results.draw_curves(progress.history, folder, ("loss", "accuracy"))
    metrics = results.last(progress.history, "accuracy") | results.summary(trained, progress)
    if scores:
        metrics |= scores
        _draw_matrix(matrix, scores, source.class_names, folder)
        ranked = best_and_worst(trained, source, recipe, devices.part_of(recipe.step_batch))
        predictions(folder / "predictions.png", ranked)
        results.save_best(classifier, progress, folder, lambda classifier: with_softmax(classifier, recipe))
    write_json(folder / METRICS, metrics)
    return metrics


def _draw_matrix(matrix, scores, class_names, folder):
    if matrix is not None:
        title = f"top-1 accuracy {scores['top1']:.1%}, {scores['images']} images"
        confusion_matrix(folder / "confusion_matrix.png", matrix, class_names, title)
