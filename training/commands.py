"""What the commands have in common: the run's name, its seed, the weights it starts from."""

import argparse
from pathlib import Path

import keras

from training import runs


def add_run_options(parser, name):
    """Adds the options that say where a run is kept."""
    parser.add_argument("--name", type=folder_name, default=name, help="of the run (default: %(default)s)")
    parser.add_argument("--runs", default="runs", help="folder of all runs (default: %(default)s)")


def folder_name(text):
    if not text or Path(text).name != text:
        raise argparse.ArgumentTypeError(f"must be a plain folder name. Received: {text!r}")
    return text


def folder_of(args):
    """The folder of the run that was asked for."""
    return Path(args.runs) / args.name


def make_reproducible(recipe):
    """Seeds all random generators; with `recipe.deterministic`, sums get a fixed order as well."""
    keras.utils.set_random_seed(recipe.seed)
    if recipe.deterministic and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def weights_of(recipe, finished=("fcmae.keras", "classifier.keras")):
    """What a recipe's `weights` mean: of a run's folder the model in it, else a path or tag as it is.

    Args:
        recipe: The recipe.
        finished: File names of models in a run's folder, the first that is there is taken.

    Raises:
        RunError: If the folder has no such model.
    """
    folder = Path(recipe.weights)
    if not (folder / runs.CONFIG).exists():
        return recipe.weights
    for name in finished:
        if (folder / name).exists():
            return str(folder / name)
    raise runs.RunError(
        f"weights must be of a finished run. Received: weights={folder} without {' or '.join(finished)}"
    )
