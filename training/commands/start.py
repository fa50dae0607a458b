"""Starts runs, for all commands: a run's folder, devices, seed and the weights it starts from."""

import argparse
import dataclasses
import logging
from pathlib import Path
from typing import NamedTuple

import keras

from keras_cnv2.checkpoints.model_folder import is_model_folder
from keras_cnv2.checkpoints.read import file_at

from ..data.images.sources import open_source
from ..distribute.strategies import STRATEGIES, open_devices
from ..errors import RunError
from ..files import read_json
from ..runs.folder import CONFIG, METRICS, open_run, releasing, versions
from . import options
from .scaling import like_weights

logger = logging.getLogger(__name__)

# Models that other runs can start from, and the kinds of runs that write them.
KINDS = {
    "fcmae.keras": "Pretraining",
    "classifier.keras": "Finetuning",
    "segmenter.keras": "Segmentation",
    "detector.keras": "Detection",
}


def add_run_options(parser, name):
    """Adds the options for the folder of a run."""
    parser.add_argument("--name", type=folder_name, default=name, help="name of the run (default: %(default)s)")
    parser.add_argument("--runs", default="runs", help="folder of all runs (default: %(default)s)")


def add_device_options(parser):
    """Adds the options for the devices of a run."""
    group = parser.add_argument_group("devices, see docs/distribute.md")
    group.add_argument(
        "--strategy",
        choices=STRATEGIES,
        default="auto",
        help="one device, all GPUs of this machine, several machines, TPUs, or what is available (default: auto)",
    )
    group.add_argument(
        "--cluster",
        help="the machines: tf_config, slurm[:PORT], kubernetes:job-name=NAME,workers=N[,port=P] or "
        "HOST:PORT,HOST:PORT,...; by default what TF_CONFIG or SLURM says. For tpu its name or local",
    )
    group.add_argument("--task", type=int, help="index of this machine in the list, from 0")


def devices_of(args):
    """Returns the devices that the options name."""
    return open_devices(args.strategy, args.cluster, args.task)


class Outcome(NamedTuple):
    """The result of a command.

    Args:
        folder: Path of the run's folder.
        metrics: The content of metrics.json, a dict; `None` on all workers except the chief.
    """

    folder: Path
    metrics: dict | None


def outcome_of(run, rows, args):
    """Runs the recipe that the options name, in their folder and on their devices.

    Args:
        run: Function of a recipe, a folder, devices and `change` that trains and returns the metrics.
        rows: Dict from names to recipes.
        args: Options as defined by `add_run_options`, `add_device_options` and `options.add_options`.

    Returns:
        The `Outcome`.
    """
    recipe = options.chosen_recipe(args, rows)
    folder = folder_of(args)
    devices = devices_of(args)
    with releasing(folder), devices.clear_errors():
        return Outcome(folder, run(recipe, folder, devices, change=args.change_recipe))


def folder_name(text):
    if text == ".." or not text or Path(text).name != text:
        raise argparse.ArgumentTypeError(f"must be a plain folder name. Received: {text!r}")
    return text


def positive_int(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive int. Received: {text!r}")
    return int(text)


def folder_of(args):
    """Returns the folder of the run that the options name."""
    folder = Path(args.runs) / args.name
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:  # bytes of another encoding, with which TensorFlow would fail much later
        raise RunError(f"A run's folder must have a name in UTF-8. Received: {str(folder)!r}") from error
    return folder


def make_reproducible(recipe):
    """Seeds all random generators; with `recipe.deterministic`, also makes TensorFlow's operations deterministic."""
    keras.utils.set_random_seed(recipe.seed)
    if recipe.deterministic and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def start_run(recipe, folder, devices, open_data=None, finish=None, change=False, **about_data):
    """Opens the data, the weights and, on the chief, the folder of a run. Succeeds on all workers or fails on all.

    Args:
        recipe: The recipe, the same on all workers.
        folder: Path of the run's folder.
        devices: `training.distribute.devices.Devices`.
        open_data: Function from the recipe to its data source; by default `open_source`, for images.
        finish: Not `None` for a run that makes no further step and thus needs no weights to start from.
        change: Whether a run may resume with another recipe, see `training.runs.folder.open_run`.
        **about_data: Keyword arguments for `open_data`.

    Returns:
        The data source, and the path or tag of the weights to start from, or `None`.

    Raises:
        TrainingError: If another worker fails, or has another recipe, other data or other packages.
        ValueError or OSError: If recipe, data, weights or folder are invalid.
    """
    with devices.agreement() as facts:
        devices.check_batch_size(recipe.batch_size, recipe.accumulation)
        if open_data is None:
            recipe = like_weights(recipe)
        source = (open_data or open_source)(recipe, **about_data)
        weights = weights_of(recipe) if recipe.weights and not finish else None
        found = {
            "images": source.size,
            "validation_images": source.validation_size,
            "classes": source.class_names and [*source.class_names],
            **source.taken,
        }
        if devices.is_chief:
            source.look(folder.parent)
            open_run(folder, recipe, found, change)
        facts.update(recipe=dataclasses.asdict(recipe), versions=versions(), **found)
    if not recipe.weights and recipe.layer_decay < 1:
        logger.warning(
            "training from scratch with layer_decay=%s, which almost stops the first layers: give --weights, or "
            "--layer-decay 1",
            recipe.layer_decay,
        )
    make_reproducible(recipe)
    return source, weights


def weights_of(recipe, finished=tuple(KINDS)):
    """Resolves a recipe's `weights`: for a run's folder, returns the model in it; returns any other path or tag as is.

    For an unfinished run, returns its best model or its newest checkpoint, and logs this.

    Args:
        recipe: The recipe.
        finished: File names of models in a run's folder; the first that exists is returned.

    Raises:
        RunError: If the folder belongs to another kind of run.
        CheckpointError: If the run has no checkpoint yet.
    """
    folder = Path(recipe.weights)
    if not (folder / CONFIG).exists():
        return recipe.weights
    for name in finished:
        if (folder / name).exists():
            return str(folder / name)
    kind = read_json(folder / CONFIG).get("kind")
    if kind in {KINDS[name] for name in finished} and is_model_folder(folder):
        path = file_at(folder)
        logger.warning("%s is an unfinished run: its %s is used", folder, path.relative_to(folder))
        return str(path)
    state = "finished" if (folder / METRICS).exists() else "not finished"
    raise RunError(
        f"weights must be of a finished run that has {' or '.join(finished)}. Received: weights={folder}, a run of "
        f"{kind} that is {state}"
    )
