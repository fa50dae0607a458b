"""The config.json of a run: what it holds, and whether a command may go on with the run that wrote it."""

import dataclasses
import json
import logging
from pathlib import Path

from keras_cnv2.images.classes import numbered

from ..errors import RunError
from ..files import read_json
from ..recipes.fields import Training
from .machine import versions
from .names import CONFIG

logger = logging.getLogger(__name__)

# Keys of config.json in addition to the recipe: facts about the data, the absolute paths of fields that are paths, and
# the earlier values of fields that were changed during the run.
FOUND, PATHS, CHANGES = "found", "paths", "changes"

# Fields that may change during a run: its length, learning rate and batch size, and fields that do not affect results.
CHANGEABLE = {
    *("epochs", "warmup_epochs", "iterations", "warmup_iterations"),
    *("base_lr", "min_lr", "lr", "schedule", "batch_size"),
    *("checkpoint_steps", "max_unreadable", "remat"),
}


def recipe_config(recipe):
    """Returns a recipe in the form of config.json."""
    return {"kind": type(recipe).__name__, **json.loads(json.dumps(dataclasses.asdict(recipe)))}


def absolute_paths(config):
    """Returns absolute paths of fields that are paths, for config.json: a later command may spell a path otherwise."""
    paths = {name: config.get(name) for name in ("data", "weights", "teacher")}
    return {PATHS: {name: str(Path(path).resolve()) for name, path in paths.items() if path and Path(path).exists()}}


def paths_of(config):
    """Returns the absolute paths of a run's fields from its config.json; ignores invalid entries."""
    paths = config.get(PATHS)
    paths = paths if isinstance(paths, dict) else {}
    return {name: path for name, path in paths.items() if isinstance(path, str) and isinstance(config.get(name), str)}


def check_same(folder, config, change=False):
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
    began_with, led_to, leads_to = before.pop("versions", {}), paths_of(before), absolute_paths(config)[PATHS]
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
