"""The main job: real pictures through pre-training, fine-tuning, evaluation, export and prediction, in one command."""

import argparse
import dataclasses
import time
from pathlib import Path

import keras
import numpy as np
from tqdm.keras import TqdmCallback

from keras_cnv2.checkpoints.metadata import metadata_of
from training import data, loop, pictures, recipes, serve
from training.runs import run_folder, versions, write_json

CLASS_NAMES = [str(digit) for digit in range(10)]
# Served and Keras's own probabilities may differ by float32 rounding only.
EXPORT_TOLERANCE = 1e-5


def add_arguments(parser):
    recipe = recipes.QUICKSTART
    parser.add_argument("--name", type=folder_name, default="quickstart", help="of the run; no run is ever overwritten")
    parser.add_argument("--runs", default="runs", help="folder of all runs (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same result (default: %(default)s)")
    for phase, schedule in (("pretrain", recipe.pretraining), ("finetune", recipe.finetuning)):
        parser.add_argument(
            f"--{phase}-epochs", type=positive_int, default=schedule.epochs, help="(default: %(default)s)"
        )


def folder_name(text):
    if not text or Path(text).name != text:
        raise argparse.ArgumentTypeError(f"must be a plain folder name. Received: {text!r}")
    return text


def positive_int(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive int. Received: {text!r}")
    return int(text)


def main(args):
    recipe = dataclasses.replace(
        recipes.QUICKSTART,
        pretraining=recipes.QUICKSTART.pretraining.with_epochs(args.pretrain_epochs),
        finetuning=recipes.QUICKSTART.finetuning.with_epochs(args.finetune_epochs),
    )
    with run_folder(args.runs, args.name) as folder:
        metrics = run(recipe, args.seed, folder)
    print_summary(metrics, f"{args.runs}/{args.name}")


def run(recipe, seed, folder):
    """Runs the whole of it and writes the results into `folder`.

    Returns:
        What is in metrics.json, a dict.
    """
    make_reproducible(seed)
    write_json(folder / "config.json", {**dataclasses.asdict(recipe), "seed": seed, "versions": versions()})
    seconds = Stopwatch()
    train, test = data.digits(recipe.image_size)

    announce(1, f"pre-training on {len(train.images)} images without their labels")
    dataset = data.batches(train.images, recipe.pretraining.batch_size, seed)
    fcmae = loop.new_fcmae(recipe, train.images.shape[-1], seed)
    losses = loop.fit(fcmae, dataset, recipe.pretraining, callbacks(folder / "pretraining.csv"))["loss"]
    fcmae.save(folder / "fcmae.keras")
    examples = test.images[:6]
    hidden = keras.ops.convert_to_numpy(fcmae(examples)["hidden"])
    painted = fcmae.reconstruct(examples, hidden=hidden)
    pictures.reconstructions(folder / "reconstructions.png", examples, hidden, painted)
    seconds.lap("pretraining")

    announce(2, "fine-tuning from the encoder")
    augment = data.shift_and_rotate(recipe.shift, recipe.rotation, seed)
    dataset = data.batches(tuple(train), recipe.finetuning.batch_size, seed, augment)
    classifier = loop.new_classifier(recipe, fcmae, CLASS_NAMES)
    history = loop.fit(
        classifier,
        dataset,
        recipe.finetuning,
        callbacks(folder / "finetuning.csv"),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    classifier.save(folder / "classifier.keras")
    pictures.learning_curves(folder / "learning_curves.png", losses, history["accuracy"])
    seconds.lap("finetuning")

    announce(3, f"evaluation on {len(test.images)} other images")
    probabilities = classifier.predict(test.images, verbose=0)
    predictions = probabilities.argmax(-1)
    accuracy = float(np.mean(predictions == test.labels))
    title = f"{accuracy:.1%} of {len(test.labels)} test images"
    pictures.confusion_matrix(folder / "confusion_matrix.png", test.labels, predictions, CLASS_NAMES, title)
    seconds.lap("evaluation")

    announce(4, "export as SavedModel, prediction in a new process")
    classifier.export(folder / "saved_model", verbose=False)
    extra = folder / "saved_model" / "assets.extra"  # TensorFlow's place for what goes along with a model
    extra.mkdir()
    write_json(extra / "keras_cnv2.json", metadata_of(classifier))
    served = serve.predict_in_new_process(folder / "saved_model", test.images)
    difference = float(np.abs(served - probabilities).max())
    if difference > EXPORT_TOLERANCE:
        raise RuntimeError(f"The exported model's probabilities differ from Keras's by {difference:.1e}.")
    seconds.lap("export")

    metrics = {
        "test_accuracy": accuracy,
        "pretraining_loss_first_epoch": losses[0],
        "pretraining_loss_last_epoch": losses[-1],
        "finetuning_accuracy_last_epoch": history["accuracy"][-1],
        "exported_max_difference": difference,
        "parameters": classifier.count_params(),
        "seconds": seconds.laps,
    }
    write_json(folder / "metrics.json", metrics)
    return metrics


def make_reproducible(seed):
    """Same seed, same numbers: all random generators, and operations whose sums have a fixed order."""
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def callbacks(csv):
    """A progress bar over the epochs with the time left, and the metrics of each epoch as CSV."""
    return [TqdmCallback(verbose=0), keras.callbacks.CSVLogger(str(csv))]


class Stopwatch:
    """Seconds of each part, in `laps`."""

    def __init__(self):
        self.laps = {}
        self._start = time.perf_counter()

    def lap(self, name):
        now = time.perf_counter()
        self.laps[name], self._start = round(now - self._start, 1), now


def announce(step, what):
    print(f"[{step}/4] {what}", flush=True)


def print_summary(metrics, folder):
    rows = {
        "test accuracy": f"{metrics['test_accuracy']:.2%}",
        "pre-training loss": f"{metrics['pretraining_loss_first_epoch']:.3f} -> "
        f"{metrics['pretraining_loss_last_epoch']:.3f}",
        "parameters": f"{metrics['parameters']:,}",
        "served against Keras": f"{metrics['exported_max_difference']:.1e} largest difference",
        "time": f"{sum(metrics['seconds'].values()):.0f} s",
        "results": folder,
    }
    width = max(map(len, rows))
    print("\n" + "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items()))
