"""A run's folder: its recipe, whether it is finished, and resuming an interrupted run."""

import contextlib
import dataclasses
import json
import logging
import os
import platform
import shutil
import threading
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from keras_cnv2.checkpoints import model_folder
from keras_cnv2.files import WRITING
from keras_cnv2.images.classes import numbered

from ..errors import RunError
from ..files import read_json, write_json
from ..loop.state import checkpoints
from ..recipes.fields import Training
from .machine import system

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

logger = logging.getLogger(__name__)

PACKAGES = ("keras_cnv2", "keras", "tensorflow", "jax", "torch", "numpy")
CONFIG, METRICS = "config.json", "metrics.json"

# Files with the model of a run: those written at its end, then the best one so far.
MODELS = ("fcmae.keras", "classifier.keras", "segmenter.keras", "detector.keras", "best.keras")
CHECKPOINTS = "checkpoints/step-*.safetensors"

# Temporary files; a leftover means that a process was killed while writing.
LEFTOVERS = f"{WRITING}*"

# Keys of config.json in addition to the recipe: facts about the data, the absolute paths of fields that are paths, and
# the earlier values of fields that were changed during the run.
FOUND, PATHS, CHANGES = "found", "paths", "changes"

# Fields that may change during a run: its length, learning rate and batch size, and fields that do not affect results.
CHANGEABLE = {
    *("epochs", "warmup_epochs", "iterations", "warmup_iterations"),
    *("base_lr", "min_lr", "lr", "schedule", "batch_size"),
    *("checkpoint_steps", "max_unreadable", "remat"),
}


class Claim(NamedTuple):
    """Keeps other processes and threads out of a run.

    Args:
        held: The file descriptor that holds the lock of the run's folder, `None` if locks are not supported.
        thread: The thread that trains the run.
        is_new: Whether there was no run in the folder before.
    """

    held: int | None
    thread: threading.Thread
    is_new: bool


# Folders of the runs of this process -> their claims.
_claimed = {}


def open_run(folder, recipe, found=None, change=False):
    """Creates the folder of a new run, or opens that of an interrupted run to resume it.

    Writes config.json with the recipe (including its seed), the facts about the data, the packages' versions and the
    machine. A run without a checkpoint cannot be resumed; it begins anew, with any recipe. With `change`, a run resumes
    with other values of the fields in `CHANGEABLE`, even if it was finished; config.json records the earlier values.

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
    config = _config(recipe) | ({FOUND: found} if found else {})
    changed = {}
    if goes_on:
        changed = _check_same(folder, config, change)
    elif folder.exists() and any(map(_is_content, folder.iterdir())) and not (folder / CONFIG).exists():
        raise FileExistsError(f"This folder has other contents than a run; give another --name. Received: {folder}")
    is_new = not (folder / CONFIG).exists()
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, is_new)
    for leftover in folder.rglob(LEFTOVERS):
        shutil.rmtree(leftover, ignore_errors=True)
    write_json(folder / model_folder.FILE, {"weights": [*MODELS, CHECKPOINTS]})
    if not goes_on:
        write_json(folder / CONFIG, {**config, **_paths(config), "versions": versions(), "system": system()})
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


def _claim(folder, is_new):
    """Reserves the run in this folder for this thread until `release`, or the end of this process.

    Raises:
        RunError: If another process or thread is already training it: their checkpoints would be mixed up.
    """
    claim = _claimed.get(folder.resolve())
    if claim and claim.thread is threading.current_thread():
        return
    if claim and not claim.thread.is_alive():
        release(folder)
    _claimed[folder.resolve()] = Claim(_locked(folder), threading.current_thread(), is_new)


def _locked(folder):
    """Locks a folder. Returns the file descriptor that holds the lock; `None` if locks are not supported."""
    if fcntl is None:
        return None
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(held)
        raise RunError(
            "Another process or thread is training the run of this name; wait for it, or give another --name. "
            f"Received: {folder}"
        ) from error
    except OSError as error:  # the file system does not support locks
        os.close(held)
        logger.warning("%s cannot be locked (%s): let no other process train there", folder, error)
        return None
    return held


@contextlib.contextmanager
def releasing(folder):
    """A context that releases the run in this folder at its end. After an error, removes a new run that never began."""
    try:
        yield
    except BaseException:
        _remove_unbegun(Path(folder))
        raise
    finally:
        release(folder)


def _remove_unbegun(folder):
    """Removes the folder of a new run of this thread if it holds only the files that `open_run` writes."""
    claim = _claimed.get(folder.resolve())
    if not claim or claim.thread is not threading.current_thread() or not claim.is_new:
        return
    if {path.name for path in folder.iterdir()} <= {CONFIG, model_folder.FILE}:
        shutil.rmtree(folder, ignore_errors=True)


def release(folder):
    """Releases the run in this folder if this thread holds it. Needed e.g. in notebooks, where the process goes on."""
    folder = Path(folder).resolve()
    claim = _claimed.get(folder)
    if claim and (claim.thread is threading.current_thread() or not claim.thread.is_alive()):
        del _claimed[folder]
        if claim.held is not None:
            os.close(claim.held)


def check_new(folder):
    """Raises a `FileExistsError` if there is a finished run in this folder."""
    if (Path(folder) / METRICS).exists():
        raise FileExistsError(f"There is a finished run of this name; give another --name. Received: {folder}")


def _config(recipe):
    """Returns a recipe in the form of config.json."""
    return {"kind": type(recipe).__name__, **json.loads(json.dumps(dataclasses.asdict(recipe)))}


def _paths(config):
    """Returns absolute paths of fields that are paths, for config.json: a later command may spell a path otherwise."""
    paths = {name: config.get(name) for name in ("data", "weights")}
    return {PATHS: {name: str(Path(path).resolve()) for name, path in paths.items() if path and Path(path).exists()}}


def paths_of(config):
    """Returns the absolute paths of a run's fields from its config.json; ignores invalid entries."""
    paths = config.get(PATHS)
    paths = paths if isinstance(paths, dict) else {}
    return {name: path for name, path in paths.items() if isinstance(path, str) and isinstance(config.get(name), str)}


def _check_same(folder, config, change=False):
    """Compares the recipe and the data with those of the run; warns if the run began with other packages.

    Args:
        folder: Path of the run's folder.
        config: The new content of config.json.
        change: Whether fields in `CHANGEABLE` may have changed.

    Returns:
        Dict from the names of changed fields to their new values.

    Raises:
        RunError: If a field that must not change has changed, or the data have.
    """
    before = _with_defaults(read_json(folder / CONFIG))
    began_with, led_to, leads_to = before.pop("versions", {}), paths_of(before), _paths(config)[PATHS]
    for name in ("system", PATHS, CHANGES):  # a run may resume on another machine, with other paths or changes
        before.pop(name, None)
    _check_same_data(folder, before.pop(FOUND, None), config.pop(FOUND, None))
    same_place = {name for name in led_to.keys() & leads_to.keys() if led_to[name] == leads_to[name]}
    names = sorted(name for name in before.keys() | config.keys() if before.get(name) != config.get(name))
    names = [name for name in names if name not in same_place]
    fixed = [name for name in names if not (change and name in CHANGEABLE)]
    if fixed:
        told = "; ".join(f"{name}: {before.get(name)} then, {config.get(name)} now" for name in fixed)
        ways = "Repeat its command to go on with it, or give another --name"
        if {*fixed} <= CHANGEABLE:
            ways += ", or --change-recipe to go on with the new one"
        elif change:
            ways += "; what --change-recipe can change is " + ", ".join(sorted(CHANGEABLE & before.keys()))
        raise RunError(f"The run of this name had another recipe. {ways}. Received: {folder} with {told}")
    if began_with != versions():
        logger.warning("The run began with other packages: %s then, %s now", began_with, versions())
    return {name: config[name] for name in names}


def _with_defaults(config):
    """Returns the content of config.json, completed by the defaults of fields that are newer than the run."""
    kinds = [Training]
    for kind in kinds:
        kinds += kind.__subclasses__()
    fields = [f for kind in kinds if kind.__name__ == config.get("kind") for f in dataclasses.fields(kind)]
    defaults = {f.name: f.default for f in fields if f.default is not dataclasses.MISSING}
    return {**json.loads(json.dumps(defaults)), **config}


def _check_same_data(folder, before, now):
    """Raises a `RunError` if the facts about the data are known before and now, and differ."""
    before, now = (found and _named_as_today(found) for found in (before, now))
    changed = [f"{n}: {before.get(n)} then, {now[n]} now" for n in now or () if before and before.get(n) != now[n]]
    if changed:
        raise RunError(
            "The data are not those that the run of this name began with. Put them back to go on with it, or give "
            f"another --name. Received: {folder} with " + "; ".join(changed)
        )


def _named_as_today(found):
    """Returns facts about data with today's names of unnamed classes, which earlier versions called "0", "1", ..."""
    names = found.get("classes")
    unnamed = names and names == [*map(str, range(len(names)))]
    return {**found, "classes": [*numbered(len(names))]} if unnamed else found


def finished(folder, recipe):
    """Returns the metrics of a finished run of this recipe, or `None` if the run is not finished.

    Raises:
        RunError: If the finished run had another recipe.
    """
    metrics = read_metrics(folder)
    if metrics is not None:
        _check_same(Path(folder), _config(recipe))
    return metrics


def read_metrics(folder):
    """Returns the metrics of a finished run, or `None` if the run is not finished."""
    path = Path(folder) / METRICS
    return read_json(path) if path.exists() else None


def versions():
    """Returns the versions of Python and of the packages that affect results."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = import_module(name).__version__
        except ImportError:
            continue
    return found
