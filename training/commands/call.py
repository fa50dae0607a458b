"""A command as a Python call: its options as keyword arguments, read by the command's own parser."""

import argparse
from importlib import import_module

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
        **options: Its other options; of a recipe's command the fields, too. `None` stands for "none".

    Returns:
        What the command's `outcome` returns.

    Raises:
        RecipeError: If there is no such option, or it cannot have that value.
    """
    module = import_module(f".{command}", __package__)
    parser = _Parser(prog=command, allow_abbrev=False, add_help=False)
    module.add_arguments(parser)
    given = {key: value for key, value in options.items() if value is not None or parser.get_default(key) is not None}
    arguments = [f"--{key.replace('_', '-')}={_text(value)}" for key, value in given.items()]
    places = ["--", *map(str, positional)] if positional else []
    return module.outcome(parser.parse_args([*arguments, *places]))


def _text(value):
    """A value as it is written on the command line."""
    if isinstance(value, (tuple, list)):
        return ",".join(map(_text, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
