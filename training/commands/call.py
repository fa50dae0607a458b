"""A command as a Python call: its options as keyword arguments, read by the command's own parser."""

import argparse
import os
from importlib import import_module

import numpy as np

from ..errors import RecipeError


class _Parser(argparse.ArgumentParser):
    """Raises what the command line prints."""

    def error(self, message):
        raise RecipeError(f"{self.prog}: {message}")


def call(command, /, *positional, **options):
    """Runs a command in this process.

    Args:
        command: Its name.
        *positional: What it takes without an option's name, strings or paths.
        **options: Its other options; of a recipe's command the fields, too. `None` is a field's "none", and stands for
            the default of anything else.

    Returns:
        What the command's `outcome` returns.

    Raises:
        RecipeError: If there is no such option, or it cannot have that value.
    """
    module = import_module(f".{command}", __package__)
    parser = _Parser(prog=command, allow_abbrev=False, add_help=False)
    module.add_arguments(parser)
    places = ["--", *(_path(command, "argument", value) for value in positional)] if positional else []
    defaults = vars(parser.parse_args(places))  # without a recipe's fields, whose defaults are those of its row
    given = {name: value for name, value in options.items() if value is not None or name not in defaults}
    arguments = [f"--{name.replace('_', '-')}={_text(value)}" for name, value in given.items()]
    args = parser.parse_args([*arguments, *places])
    for name, value in given.items():
        if isinstance(getattr(args, name, None), str):  # which a list or a number would be as well, written out
            _path(command, name, value)
    return module.outcome(args)


def _text(value):
    """A value as it is written on the command line."""
    if isinstance(value, (np.ndarray, np.bool_)):
        value = value.tolist()
    if isinstance(value, (tuple, list)):
        return ",".join(map(_text, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _path(command, name, value):
    if not isinstance(value, (str, os.PathLike)):
        raise RecipeError(f"{command}: {name} must be a string or a path. Received: {name}={value!r}")
    return os.fspath(value)
