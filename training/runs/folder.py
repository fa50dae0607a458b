"""A run's folder: begins a new run, resumes an interrupted one, and tells whether a run is finished."""

import shutil
from pathlib import Path

from keras_cnv2.checkpoints import model_folder
from keras_cnv2.files import WRITING

from ..files import read_json, write_json
from ..loop.state import checkpoints
from .config import CHANGES, FOUND, absolute_paths, check_same, recipe_config
from .lock import claim
from .machine import system, versions
from .names import BEST, CHECKPOINTS, CONFIG, METRICS, MODELS

# Temporary files; a leftover means that a process was killed while writing.
LEFTOVERS = f"{WRITING}*"


def open_run(folder, recipe, found=None, change=False):
    """Creates the folder of a new run, or opens that of an interrupted run to resume it.

    Writes config.json with the recipe (including its seed), the facts about the data, the packages' versions and the
    machine. A run without a checkpoint cannot be resumed; it begins anew, with any recipe. With `change`, a run resumes
    with other values of the fields in `training.runs.config.CHANGEABLE`, even if it was finished; config.json records
    the earlier values.

    Args:
        folder: Path of the run's folder.
        recipe: The recipe, a dataclass.
        found: Optional dict of facts about its data, JSON serializable. The number of steps and the order of classes
            depend on them, so they must not change during a run.
        change: Whether the recipe may have changed.

    Returns:
        The folder as a `Path`.

    Raises:
        FileExistsError: If the folder has a finished run, or other contents than a run.
        RunError: If the run in the folder had another recipe or other data, or is still running.
    """
    folder = Path(folder)
    goes_on = (folder / CONFIG).exists() and checkpoints(folder / "checkpoints")
    if not (change and goes_on):
        check_new(folder)
    config = recipe_config(recipe) | ({FOUND: found} if found else {})
    changed = {}
    if goes_on:
        changed = check_same(folder, config, change)
    elif folder.exists() and any(map(_is_content, folder.iterdir())) and not (folder / CONFIG).exists():
        raise FileExistsError(f"This folder has other contents than a run; give another --name. Received: {folder}")
    is_new = not (folder / CONFIG).exists()
    folder.mkdir(parents=True, exist_ok=True)
    claim(folder, is_new)
    for leftover in folder.rglob(LEFTOVERS):
        shutil.rmtree(leftover, ignore_errors=True)
    write_json(folder / model_folder.FILE, {"weights": [*MODELS.values(), BEST, CHECKPOINTS]})
    if not goes_on:
        write_json(folder / CONFIG, {**config, **absolute_paths(config), "versions": versions(), "system": system()})
    elif changed or (folder / METRICS).exists():
        _record(folder, changed, max(goes_on))
    return folder


def _record(folder, changed, step):
    """Writes changed fields into config.json, with their earlier values and metrics. Marks the run as unfinished."""
    config, metrics = read_json(folder / CONFIG), read_metrics(folder)
    earlier = config.get(CHANGES)
    before = {name: config.get(name) for name in changed}
    change = {"step": step, "before": before} | ({"metrics": metrics} if metrics else {})
    write_json(
        folder / CONFIG, {**config, **changed, CHANGES: [*(earlier if isinstance(earlier, list) else []), change]}
    )
    (folder / METRICS).unlink(missing_ok=True)


def _is_content(path):
    return not path.match(LEFTOVERS)


def check_new(folder):
    """Raises a `FileExistsError` if there is a finished run in this folder."""
    if (Path(folder) / METRICS).exists():
        raise FileExistsError(f"There is a finished run of this name; give another --name. Received: {folder}")


def finished(folder, recipe):
    """Returns the metrics of a finished run of this recipe, or `None` if the run is not finished.

    Raises:
        RunError: If the finished run had another recipe.
    """
    metrics = read_metrics(folder)
    if metrics is not None:
        check_same(Path(folder), recipe_config(recipe))
    return metrics


def read_metrics(folder):
    """Returns the metrics of a finished run, or `None` if the run is not finished."""
    path = Path(folder) / METRICS
    return read_json(path) if path.exists() else None
