"""Train a classifier, from an FCMAE run, published weights, a file, or from scratch."""

import logging

import keras
import numpy as np

from keras_cnv2.checkpoints.write import replacing
from training import checkpoints, loop, options, pictures, runs
from training.augment import Augmentation
from training.commands import add_run_options, folder_of, make_reproducible, weights_of
from training.evaluate import evaluate, print_scores
from training.recipes import FINETUNING
from training.sources import open_source

logger = logging.getLogger(__name__)

MODEL = "classifier.keras"


def add_arguments(parser):
    add_run_options(parser, "finetune")
    options.add_options(parser, FINETUNING, "images")


def main(args):
    recipe = options.chosen_recipe(args, FINETUNING)
    folder = folder_of(args)
    metrics = run(recipe, folder)
    if "top1" in metrics:
        print_scores(metrics)
    print(f"weights: {folder / MODEL}")


def run(recipe, folder):
    """Trains to the end of a recipe, going on if the folder has an interrupted run of it.

    Writes classifier.keras (with `recipe.ema` the averaged weights), best.keras if another epoch was the best one,
    learning_curves.png, confusion_matrix.png, metrics.json, the logs and the checkpoints.

    Returns:
        What is in metrics.json, a dict.
    """
    source = open_source(recipe)
    weights = weights_of(recipe) if recipe.weights else None
    folder = runs.open_run(folder, recipe)
    make_reproducible(recipe)
    classifier = loop.new_classifier(recipe, source.channels, source.class_names, weights)
    if recipe.frozen:
        loop.freeze_encoder(classifier)
    progress = loop.train(
        classifier,
        recipe,
        source,
        folder,
        augmentation=Augmentation(
            classes=len(source.class_names),
            rand_augment=recipe.rand_augment,
            rand_augment_std=recipe.rand_augment_std,
            erasing=recipe.erasing,
            label_smoothing=recipe.label_smoothing,
            mixup=recipe.mixup,
            cutmix=recipe.cutmix,
        ),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    trained = loop.with_softmax(classifier, recipe)
    save(trained, folder / MODEL)
    _draw_curves(progress.history, folder)
    metrics = {"accuracy": progress.history[-1]["accuracy"], "parameters": trained.count_params()}
    metrics["seconds"] = round(sum(row["seconds"] for row in progress.history), 1)
    validation = source.validation(recipe, recipe.step_batch)
    if validation is not None:
        metrics |= _judge(trained, validation, folder)
        if progress.best != progress.step:
            checkpoints.restore(folder / "checkpoints", classifier, progress.best)
            classifier.optimizer.finalize_variable_values(classifier.trainable_variables)
            save(loop.with_softmax(classifier, recipe), folder / "best.keras")
        metrics["best_epoch"] = next(row["epoch"] for row in progress.history if row["step"] == progress.best)
    runs.write_json(folder / runs.METRICS, metrics)
    return metrics


def save(model, path):
    """Writes a Keras file, whole or not at all."""
    with replacing(path) as temporary:
        model.save(temporary)


def _judge(classifier, validation, folder):
    """The metrics of the finished classifier, and its confusion matrix as a picture."""
    scores, matrix = evaluate(classifier, validation)
    if matrix is not None:
        title = f"{scores['top1']:.1%} of {scores['images']} images"
        pictures.confusion_matrix(folder / "confusion_matrix.png", matrix, classifier.class_names, title)
    return scores


def _draw_curves(history, folder):
    panels = {}
    for label in ("loss", "accuracy"):
        curves = {"training": label, "validation": f"val_{label}"}
        panels[label] = {
            name: [row.get(key, np.nan) for row in history] for name, key in curves.items() if key in history[0]
        }
    pictures.learning_curves(folder / "learning_curves.png", panels)
