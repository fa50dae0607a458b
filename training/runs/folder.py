"""A run's folder: what ran, whether it is finished, and going on where it was interrupted."""

import dataclasses
import json
import logging
import os
import platform
import shutil
from importlib import import_module
from pathlib import Path

from keras_cnv2.files import WRITING

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

# What a process leaves behind that is killed while it writes.
LEFTOVERS = f"{WRITING}*"

# In config.json: what was found in the data.
FOUND = "found"

# Folder of a run of this process -> the descriptor that holds its lock.
_claimed = {}


def open_run(folder, recipe, found=None):
    """Makes the folder of a new run, or takes that of an interrupted one to go on with.

    The recipe (the seed in it), what was found in the data, the packages' versions and the machine go into config.json.
    A run that came to no checkpoint has nothing to go on with and begins anew, with any recipe.

    Args:
        folder: Path of the run.
        recipe: The recipe, a dataclass.
        found: Optional dict of facts about its data, JSON. The steps of a run and the places of its classes follow from
            them, so they must not change on the way.

    Returns:
        The folder as a `Path`.

    Raises:
        FileExistsError: If there is a finished run, or anything but a run.
        RunError: If the interrupted run there had another recipe, or other data, or is not interrupted but running.
    """
    folder = Path(folder)
    check_new(folder)
    config = _config(recipe) | ({FOUND: found} if found else {})
    if (folder / CONFIG).exists() and checkpoints(folder / "checkpoints"):
        _check_same(folder, config)
    elif folder.exists() and any(map(_is_content, folder.iterdir())) and not (folder / CONFIG).exists():
        raise FileExistsError(f"There is something else than a run; give another --name. Received: {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder)
    for leftover in folder.rglob(LEFTOVERS):
        shutil.rmtree(leftover, ignore_errors=True)
    if not (folder / CONFIG).exists() or not checkpoints(folder / "checkpoints"):
        write_json(folder / CONFIG, {**config, "versions": versions(), "system": system()})
    return folder


def _is_content(path):
    return not path.match(LEFTOVERS)


def _claim(folder):
    """Keeps other processes from the run in this folder until this one ends.

    Raises:
        RunError: If another one is there already: their checkpoints would be mixed up.
    """
    if fcntl is None or folder.resolve() in _claimed:
        return
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(held)
        raise RunError(
            f"Another process is training the run of this name; wait for it, or give another --name. Received: {folder}"
        ) from error
    except OSError as error:  # file systems that know no locks
        os.close(held)
        logger.warning("%s cannot be locked (%s): let no other process train there", folder, error)
        return
    _claimed[folder.resolve()] = held


def check_new(folder):
    """Raises a `FileExistsError` if there is a finished run in this folder."""
    if (Path(folder) / METRICS).exists():
        raise FileExistsError(f"There is a finished run of this name; give another --name. Received: {folder}")


def _config(recipe):
    """A recipe as config.json has it."""
    return {"kind": type(recipe).__name__, **json.loads(json.dumps(dataclasses.asdict(recipe)))}


def _check_same(folder, config):
    """Raises a `RunError` if the run has another recipe; warns if it began with other packages."""
    before = _with_defaults(read_json(folder / CONFIG))
    began_with = before.pop("versions", {})
    before.pop("system", None)  # it may go on elsewhere
    _check_same_data(folder, before.pop(FOUND, None), config.pop(FOUND, None))
    names = sorted(before.keys() | config.keys())
    changed = [f"{n}: {before.get(n)} then, {config.get(n)} now" for n in names if before.get(n) != config.get(n)]
    if changed:
        raise RunError(
            "The run of this name had another recipe. Repeat its command to go on with it, or give another --name. "
            f"Received: {folder} with " + "; ".join(changed)
        )
    if began_with != versions():
        logger.warning("The run began with other packages: %s then, %s now", began_with, versions())


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
    changed = [f"{n}: {before.get(n)} then, {now[n]} now" for n in now or () if before and before.get(n) != now[n]]
    if changed:
        raise RunError(
            "The data are not those that the run of this name began with. Put them back to go on with it, or give "
            f"another --name. Received: {folder} with " + "; ".join(changed)
        )


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
