"""The training application: `keras-cnv2 finetune ...`, or `python -m training finetune ...` in a checkout.

Map of the package. Each room imports only from rooms above it:

    errors          errors that end a command with a message
    files           JSON and text files
    drawing/        figures of runs, models and predictions
    analysis/       activations of a model's layers, and what its classes respond to
    models/         builds a recipe's model
    recipes/        fields and rows of recipes
    data/           turns files and arrays into augmented batches
    distribute/     strategies, clusters, and workers that meet, die or are preempted
    loop/           strategy, fit, checkpoints, resuming
    evaluation/     scores of classifiers, segmenters and detectors
    runs/           a run's folder, its results, the machine
    reports/        HTML pages about runs
    commands/       one file for each command, and the code that starts a run

Modules whose docstring says "imports no TensorFlow" run on any backend of Keras. In the wheel this package is called
keras_cnv2_training.
"""

import contextlib
import importlib.util

# Packages of the extra [train] that are checked before a command begins, since some are used only at its end. The rest
# is imported only with the data that need it.
PACKAGES = ("matplotlib", "sklearn", "tqdm")


def pretrain(**fields):
    """Pre-trains an encoder with FCMAE, as `keras-cnv2 pretrain` does.

    ```python
    folder, metrics = training.pretrain(data="photos", model="atto", epochs=100)
    ```

    Args:
        **fields: The command's options, all optional, with underscores and as Python values: `recipe` (a name) or
            `config` (the config.json of an earlier run); the recipe's fields, see `training.recipes.fields`, which
            override its row; `name` and `runs` (the run's folder); `strategy`, `cluster` and `task` (devices).

    Returns:
        A named tuple of the run's `folder` and its `metrics`, a dict, or `None` on all workers except the chief.

    Raises:
        RecipeError: If an option or field is unknown or its value is invalid.
        DataError, RunError, TrainingError: If data, folder or training fail, see `training.errors`.
    """
    return _call("pretrain", **fields)


def finetune(**fields):
    """Trains a classifier, as `keras-cnv2 finetune` does.

    ```python
    folder, metrics = training.finetune(data="animals", weights="runs/pretrain", epochs=50)
    ```

    Args:
        **fields: As in `pretrain`.

    Returns:
        As `pretrain`.

    Raises:
        As `pretrain`.
    """
    return _call("finetune", **fields)


def segment(**fields):
    """Trains semantic segmentation, as `keras-cnv2 segment` does. Arguments, results and errors as in `pretrain`."""
    return _call("segment", **fields)


def detect(**fields):
    """Trains object detection, as `keras-cnv2 detect` does. Arguments, results and errors as in `pretrain`."""
    return _call("detect", **fields)


def finish(run, **options):
    """Ends a run early, as `keras-cnv2 finish` does: writes its model, figures and metrics from a checkpoint.

    Args:
        run: Path of the run's folder.
        **options: `best`, whether to use the checkpoint with the best validation instead of the newest; `strategy`,
            `cluster`, `task`.

    Returns:
        As `pretrain`.

    Raises:
        RunError: If there is no such run, it is finished or still running, or it has no checkpoint yet.
    """
    return _call("finish", run, **options)


def quickstart(**options):
    """Runs pre-training, fine-tuning, evaluation, export and prediction on digits, as `keras-cnv2 quickstart` does.

    Args:
        **options: `name`, `runs`, `seed`, `pretrain_epochs`, `finetune_epochs`, all optional.

    Returns:
        As `pretrain`.
    """
    return _call("quickstart", **options)


def evaluate(**options):
    """Evaluates a classifier, as `keras-cnv2 evaluate` does.

    Args:
        **options: `weights` and `data`, or `config` of a run; optional `model`, `image_size`, `resize`, `batch_size`,
            `json` (path of a file to write), `strategy`, `cluster`, `task`.

    Returns:
        A dict with "top1", "top5", "images", "images_per_second" and "classes"; `None` on all workers except the chief.

    Raises:
        RecipeError: If the weights are not those of a classifier, or its classes are not those of the data.
    """
    return _call("evaluate", **options)


def analyze(*weights, labels=True, **options):
    """Analyses the channels of models, as `keras-cnv2 analyze` does.

    Args:
        *weights: Runs' folders, published tags or files.
        labels: Bool, whether the data have classes.
        **options: `data`, or `config` of a run; optional `model`, `images`, `image_size`, `resize`, `batch_size`,
            `name`, `runs`.

    Returns:
        A named tuple of the `folder` with the figures, and `metrics`, a dict from models to their measurements.

    Raises:
        RecipeError: If a model and the data do not fit each other.
    """
    return _call("analyze", *weights, labels=labels, **options)


def report(*folders, out=None):
    """Writes a page about runs, as `keras-cnv2 report` does.

    Args:
        *folders: Paths of runs, or of folders that hold runs.
        out: Path of the page; by default report.html in the common folder of all runs.

    Returns:
        The page's path.

    Raises:
        RunError: If a folder holds no run.
    """
    return _call("report", *folders, out=out)


@contextlib.contextmanager
def packages():
    """A context for a command: errors about missing packages say what to install. Checks `PACKAGES` at its start."""
    try:
        for name in PACKAGES:
            if importlib.util.find_spec(name) is None:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        yield
    except ModuleNotFoundError as error:
        message = f'{error}; install what training needs: pip install "keras_cnv2[train]"'
        raise ModuleNotFoundError(message, name=error.name) from error


def __getattr__(name):
    """Imports `training.recipes`, whose rows users may read, on first use, because it imports Keras."""
    if name == "recipes":
        return importlib.import_module(".recipes", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _call(command, /, *positional, **options):
    with packages():
        from .commands.call import call  # imports Keras

        return call(command, *positional, **options)
