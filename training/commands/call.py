"""Calls a command from Python, with its options as keyword arguments, parsed by the command's own parser."""

import argparse
import os
from importlib import import_module

import numpy as np

from ..errors import RecipeError
from .values import option


class _Parser(argparse.ArgumentParser):
    """Raises usage errors instead of printing them."""

    def error(self, message):
        raise RecipeError(f"{self.prog}: {message}")


def call(command, /, *positional, **options):
    """Runs a command in this process.

    Args:
        command: Name of the command.
        *positional: Positional arguments of the command, strings or paths.
        **options: Options of the command, including the fields of its recipe. For a field, `None` means "none"; for
            any other option, it means the default.

    Returns:
        The result of the command's `outcome`.

    Raises:
        RecipeError: If an option is unknown or its value is invalid.
    """
    module = import_module(f".{command}", __package__)
    parser = _Parser(prog=command, allow_abbrev=False, add_help=False)
    module.add_arguments(parser)
    places = ["--", *(_path(command, "argument", value) for value in positional)] if positional else []
    defaults = vars(parser.parse_args(places))  # excludes a recipe's fields, whose defaults are those of its row
    given = {name: value for name, value in options.items() if value is not None or name not in defaults}
    arguments = [f"{option(name)}={_text(value)}" for name, value in given.items()]
    args = parser.parse_args([*arguments, *places])
    for name, value in given.items():
        if isinstance(getattr(args, name, None), str):  # refuse lists and numbers, which were converted to text
            _path(command, name, value)
    return module.outcome(args)


def _text(value):
    """Returns a value as text for the command line."""
    if isinstance(value, (np.ndarray, np.bool_)):
        value = value.tolist()
    if isinstance(value, (tuple, list)):
        return ",".join(map(_text, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _path(command, name, value):
    if not isinstance(value, (str, os.PathLike)):
        raise RecipeError(f"{command}: {name} must be a string or a path. Received: {name}={value!r}")
    return os.fspath(value)
