"""A run's folder: what ran, whether it is finished, and going on where it was interrupted."""

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

# The models that runs end with, then what they have before.
MODELS = ("fcmae.keras", "classifier.keras", "segmenter.keras", "detector.keras", "best.keras")
CHECKPOINTS = "checkpoints/step-*.safetensors"

# What a process leaves behind that is killed while it writes.
LEFTOVERS = f"{WRITING}*"

# In config.json, beside the recipe: what was found in the data, where fields that are paths lead to, and with which
# other values the run began that went on with those of the recipe.
FOUND, PATHS, CHANGES = "found", "paths", "changes"

# What may change on the way: how long the run is, how fast it learns, on how much at once; and what changes no number.
CHANGEABLE = {
    *("epochs", "warmup_epochs", "iterations", "warmup_iterations"),
    *("base_lr", "min_lr", "lr", "schedule", "batch_size"),
    *("checkpoint_steps", "max_unreadable", "remat"),
}


class Claim(NamedTuple):
    """What keeps others from a run.

    Args:
        held: The descriptor that holds its folder's lock, `None` where there are no locks.
        thread: The thread that trains it.
        is_new: Whether there was no run in the folder before.
    """

    held: int | None
    thread: threading.Thread
    is_new: bool


# Folder of a run of this process -> its claim.
_claimed = {}


def open_run(folder, recipe, found=None, change=False):
    """Makes the folder of a new run, or takes that of an interrupted one to go on with.

    The recipe (the seed in it), what was found in the data, the packages' versions and the machine go into config.json.
    A run that came to no checkpoint has nothing to go on with and begins anew, with any recipe. With `change`, a run
    goes on with other values of the fields in `CHANGEABLE`, also if it was finished; what they were is in config.json.

    Args:
        folder: Path of the run.
        recipe: The recipe, a dataclass.
        found: Optional dict of facts about its data, JSON. The steps of a run and the places of its classes follow from
            them, so they must not change on the way.
        change: Whether the recipe may have changed.

    Returns:
        The folder as a `Path`.

    Raises:
        FileExistsError: If there is a finished run, or anything but a run.
        RunError: If the interrupted run there had another recipe, or other data, or is not interrupted but running.
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
        raise FileExistsError(f"There is something else than a run; give another --name. Received: {folder}")
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
    """Writes into config.json what a run goes on with, and what it had and came to before. It is unfinished then."""
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
    """Keeps others from the run in this folder until `release`, or the end of this process.

    Raises:
        RunError: If another process or thread is there already: their checkpoints would be mixed up.
    """
    claim = _claimed.get(folder.resolve())
    if claim and claim.thread is threading.current_thread():
        return
    if claim and not claim.thread.is_alive():
        release(folder)
    _claimed[folder.resolve()] = Claim(_locked(folder), threading.current_thread(), is_new)


def _locked(folder):
    """The descriptor that holds the lock of this folder; `None` where there are no locks."""
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
    except OSError as error:  # file systems that know no locks
        os.close(held)
        logger.warning("%s cannot be locked (%s): let no other process train there", folder, error)
        return None
    return held


@contextlib.contextmanager
def releasing(folder):
    """A context at whose end others may have the run in this folder. Of a new one that never began, nothing stays."""
    try:
        yield
    except BaseException:
        _remove_unbegun(Path(folder))
        raise
    finally:
        release(folder)


def _remove_unbegun(folder):
    """Removes the folder of a new run of this thread if there is nothing in it yet but what `open_run` writes."""
    claim = _claimed.get(folder.resolve())
    if not claim or claim.thread is not threading.current_thread() or not claim.is_new:
        return
    if {path.name for path in folder.iterdir()} <= {CONFIG, model_folder.FILE}:
        shutil.rmtree(folder, ignore_errors=True)


def release(folder):
    """Lets others have the run in this folder, where this thread had it: in a notebook, the process goes on."""
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
    """A recipe as config.json has it."""
    return {"kind": type(recipe).__name__, **json.loads(json.dumps(dataclasses.asdict(recipe)))}


def _paths(config):
    """Where the fields lead to that are paths here, for config.json: the same place may be spelled otherwise later."""
    paths = {name: config.get(name) for name in ("data", "weights")}
    return {PATHS: {name: str(Path(path).resolve()) for name, path in paths.items() if path and Path(path).exists()}}


def paths_of(config):
    """Where the fields of a run led to that were paths, from what its config.json holds, whatever that is."""
    paths = config.get(PATHS)
    paths = paths if isinstance(paths, dict) else {}
    return {name: path for name, path in paths.items() if isinstance(path, str) and isinstance(config.get(name), str)}


def _check_same(folder, config, change=False):
    """Compares the recipe with that of the run; warns if it began with other packages.

    Args:
        folder: Path of the run.
        config: What config.json would hold.
        change: Whether fields may have changed.

    Returns:
        {name: value} of the fields that have changed.

    Raises:
        RunError: If one has that may not.
    """
    before = _with_defaults(read_json(folder / CONFIG))
    began_with, led_to, leads_to = before.pop("versions", {}), paths_of(before), _paths(config)[PATHS]
    for name in ("system", PATHS, CHANGES):  # it may go on elsewhere, and otherwise
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
    """What is in config.json, with the defaults of fields that recipes have had only since that run began."""
    kinds = [Training]
    for kind in kinds:
        kinds += kind.__subclasses__()
    fields = [f for kind in kinds if kind.__name__ == config.get("kind") for f in dataclasses.fields(kind)]
    defaults = {f.name: f.default for f in fields if f.default is not dataclasses.MISSING}
    return {**json.loads(json.dumps(defaults)), **config}


def _check_same_data(folder, before, now):
    """Raises a `RunError` if both are known and differ."""
    before, now = (found and _named_as_today(found) for found in (before, now))
    changed = [f"{n}: {before.get(n)} then, {now[n]} now" for n in now or () if before and before.get(n) != now[n]]
    if changed:
        raise RunError(
            "The data are not those that the run of this name began with. Put them back to go on with it, or give "
            f"another --name. Received: {folder} with " + "; ".join(changed)
        )


def _named_as_today(found):
    """What was found in data. Classes that nobody named were called by their numbers alone when some runs began."""
    names = found.get("classes")
    unnamed = names and names == [*map(str, range(len(names)))]
    return {**found, "classes": [*numbered(len(names))]} if unnamed else found


def finished(folder, recipe):
    """The metrics of a finished run of this recipe, or `None`.

    Raises:
        RunError: If the run that is finished there had another recipe.
    """
    metrics = read_metrics(folder)
    if metrics is not None:
        _check_same(Path(folder), _config(recipe))
    return metrics


def read_metrics(folder):
    """The metrics of a finished run, or `None`."""
    path = Path(folder) / METRICS
    return read_json(path) if path.exists() else None


def versions():
    """The versions of Python and of the packages that decide the numbers."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = import_module(name).__version__
        except ImportError:
            continue
    return found
