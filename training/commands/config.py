"""Reads a recipe from the config.json of an earlier run."""

import dataclasses
import sys
import typing
from pathlib import Path

from ..errors import RecipeError
from ..files import read_json
from ..runs.config import CHANGES, FOUND, PATHS, paths_of
from ..runs.names import CONFIG
from .values import choices, parts_of, type_names

# Keys of config.json in addition to the recipe's fields.
BESIDE = {"kind", "versions", "system", FOUND, PATHS, CHANGES}


def read_config(path):
    """Reads the config.json of a run into a dict.

    Paths that do not exist from here are replaced by the absolute paths that they stood for in the run.

    Args:
        path: Path of the file, or of the run's folder.

    Raises:
        RecipeError: If there is no such file or folder, or it has no configuration of a run.
        OSError: If the file cannot be read.
    """
    path = Path(path)
    file = path / CONFIG if path.is_dir() else path
    if not file.exists():
        raise RecipeError(f"A run is given by its folder, or by its {CONFIG}. Received: {file}, which does not exist")
    config = read_json(file, object)
    if not isinstance(config, dict) or not isinstance(config.get("kind"), str):
        raise RecipeError(f"config must be the {CONFIG} of a run. Received: {path}")
    return config | {name: path for name, path in paths_of(config).items() if not Path(config[name]).exists()}


def recipe_of(path, kind):
    """Returns the recipe of an earlier run.

    Args:
        path: Path of the run's config.json, or of its folder.
        kind: Class of the recipe.

    Raises:
        RecipeError: If the run had another kind of recipe, or a field is unknown, missing or invalid.
    """
    config = read_config(path)
    if config["kind"] != kind.__name__:
        raise RecipeError(f"config must be of a run of {kind.__name__}. Received: {path}, of {config['kind']}")
    given = {name: value for name, value in config.items() if name not in BESIDE}
    fields = {field.name: field for field in dataclasses.fields(kind)}
    missing = [f.name for n, f in fields.items() if n not in given and f.default is dataclasses.MISSING]
    if unknown := sorted(given.keys() - fields.keys()):
        raise RecipeError(f"config must have fields of {kind.__name__} alone. Received: {path} with {unknown}")
    if missing:
        raise RecipeError(f"config must have all fields of {kind.__name__}. Received: {path} without {missing}")
    return kind(**{name: value_of(name, value, fields[name].type, path) for name, value in given.items()})


def value_of(name, value, annotation, path):
    """Returns a field's value from its JSON value. Raises a `RecipeError` if the type is wrong."""
    value = tuple(value) if isinstance(value, list) else value
    if not _fits(value, annotation):
        allowed = " or ".join(type_names(annotation))
        raise RecipeError(f"{name} must be {allowed}. Received: {name}={value!r} in {path}")
    return value


def _fit_parts(values, parts):
    return len(values) == len(parts) and all(map(_fits, values, parts))


def _fits(value, annotation):
    def fits(kind):
        if typing.get_args(kind):
            return isinstance(value, tuple) and _fit_parts(value, parts_of(kind, len(value)))
        if kind is float:
            return type(value) in (int, float) and abs(value) <= sys.float_info.max  # false for NaN
        return type(value) is kind

    return any(map(fits, choices(annotation)))
