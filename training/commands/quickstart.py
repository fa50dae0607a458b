"""Run everything once: pre-training, fine-tuning, evaluation, export and prediction on digits."""

import dataclasses
import time

import keras
import numpy as np

from keras_cnv2.terminal import printable

from ..data.images.sources import open_source
from ..files import write_json
from ..recipes.images import FINETUNING, PRETRAINING
from ..runs.folder import check_new, finished
from ..runs.names import METRICS, MODELS
from . import finetune, pretrain, served
from .exported import export_saved, require_tensorflow
from .reproducible import make_reproducible
from .run_options import Outcome, add_run_options, folder_of
from .values import positive_int

# The exported model's probabilities may differ from Keras's by float32 rounding only.
EXPORT_TOLERANCE = 1e-5


def add_arguments(parser):
    add_run_options(parser, "quickstart")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same result (default: %(default)s)")
    for phase, rows in (("pretrain", PRETRAINING), ("finetune", FINETUNING)):
        epochs = rows["quickstart"].epochs
        parser.add_argument(f"--{phase}-epochs", type=positive_int, default=epochs, help="(default: %(default)s)")


def outcome(args):
    """Runs the command. Returns the `Outcome`."""
    folder = folder_of(args)
    pretraining = with_epochs(PRETRAINING["quickstart"], args.pretrain_epochs, args.seed)
    finetuning = with_epochs(FINETUNING["quickstart"], args.finetune_epochs, args.seed)
    finetuning = dataclasses.replace(finetuning, weights=str(folder / "pretraining"))
    return Outcome(folder, run(pretraining, finetuning, folder))


def main(args):
    folder, metrics = outcome(args)
    print_summary(metrics, folder)


def with_epochs(recipe, epochs, seed):
    """Returns a recipe with other epochs and seed, and a warm-up of at most half of the epochs."""
    warmup = min(recipe.warmup_epochs, epochs // 2)
    return dataclasses.replace(recipe, epochs=epochs, warmup_epochs=warmup, seed=seed)


def run(pretraining, finetuning, folder):
    """Runs the whole quickstart, or resumes an interrupted one.

    Returns:
        The content of metrics.json, a dict.

    Raises:
        FileExistsError: If the quickstart in this folder is finished.
        ImportError: If TensorFlow, which exports the model, is not installed.
        RunError: If the folder has runs with other recipes.
    """
    check_new(folder)
    require_tensorflow()
    start = time.perf_counter()
    announce(1, "pre-training on handwritten digits without their labels")
    pretrained = _run(pretrain, pretraining, folder / "pretraining")
    announce(2, "fine-tuning from the encoder, evaluation on other digits")
    finetuned = _run(finetune, finetuning, folder / "finetuning")
    announce(3, "export as SavedModel, prediction in a new process")
    difference = export(folder, finetuning)
    metrics = {
        "test_accuracy": finetuned["top1"],
        "pretraining_loss_first_epoch": pretrained["first_loss"],
        "pretraining_loss_last_epoch": pretrained["loss"],
        "finetuning_accuracy_last_epoch": finetuned["accuracy"],
        "exported_max_difference": difference,
        "parameters": finetuned["parameters"],
        "seconds": round(time.perf_counter() - start, 1),
    }
    write_json(folder / METRICS, metrics)
    return metrics


def _run(phase, recipe, folder):
    return finished(folder, recipe) or phase.run(recipe, folder)


def export(folder, recipe):
    """Exports the classifier and predicts with it in a new process.

    Returns:
        The largest difference between the exported model's and Keras's probabilities on the test images.
    """
    make_reproducible(recipe)
    images = open_source(recipe).test.images
    path = folder / "finetuning" / MODELS["Finetuning"]
    export_saved(path, folder / "saved_model")
    classifier = keras.saving.load_model(path)
    answers = served.predict_in_new_process(folder / "saved_model", images)
    difference = float(np.abs(answers - classifier.predict(images, verbose=0)).max())
    if difference > EXPORT_TOLERANCE:
        raise RuntimeError(f"The exported model's probabilities differ from Keras's by {difference:.1e}.")
    return difference


def announce(step, what):
    print(f"[{step}/3] {what}", flush=True)


def print_summary(metrics, folder):
    rows = {
        "test accuracy": f"{metrics['test_accuracy']:.2%}",
        "pre-training loss": f"{metrics['pretraining_loss_first_epoch']:.3f} -> "
        f"{metrics['pretraining_loss_last_epoch']:.3f}",
        "parameters": f"{metrics['parameters']:,}",
        "served against Keras": f"{metrics['exported_max_difference']:.1e} largest difference",
        "time": f"{metrics['seconds']:.0f} s",
        "results": printable(folder),
    }
    width = max(map(len, rows))
    print("\n" + "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items()))
