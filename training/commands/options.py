"""Command-line options for the fields of a recipe."""

import argparse
import dataclasses
import logging
import re

from ..errors import RecipeError
from .config import recipe_of
from .values import converter, option, type_names

logger = logging.getLogger(__name__)


def add_options(parser, rows, default):
    """Adds `--recipe`, `--config`, `--change-recipe` and an option for each field of the recipes.

    Args:
        parser: An `argparse` parser.
        rows: Dict from names to recipes of one class.
        default: Name of the default recipe.
    """
    kind = type(rows[default])
    meanings = explanations(kind)
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--recipe", choices=rows, default=default, metavar="NAME", help="one of `recipes` (default: %(default)s)"
    )
    source.add_argument("--config", metavar="FILE", help="config.json of an earlier run, whose recipe is taken")
    parser.add_argument(
        "--change-recipe",
        type=converter(bool),
        nargs="?",
        const=True,
        default=False,
        help="resume the run of this name with other epochs, another learning rate or batch size",
    )
    group = parser.add_argument_group("fields of the recipe, which override its row")
    for field in dataclasses.fields(kind):
        is_flag = field.type is bool
        group.add_argument(
            option(field.name),
            type=converter(field.type),
            nargs="?" if is_flag else None,
            const=True if is_flag else None,
            default=argparse.SUPPRESS,
            metavar=" | ".join(type_names(field.type)).upper(),
            help=meanings[field.name].replace("%", "%%"),
        )


def chosen_recipe(args, rows):
    """Returns the recipe that the options name, with the fields that they set.

    Raises:
        RecipeError: If a field has an invalid value, or the configuration does not hold such a recipe.
    """
    row = recipe_of(args.config, type(rows[args.recipe])) if args.config else rows[args.recipe]
    given = {field.name: getattr(args, field.name) for field in dataclasses.fields(row) if hasattr(args, field.name)}
    if given.get("model") and row.depths:  # a published size replaces the row's own architecture
        given = {"depths": None, "dims": None, **given}
    elif given.get("depths") and row.model:
        given = {"model": None, **given}
    _check_warm_up(row, given)
    return dataclasses.replace(row, **given)


def _check_warm_up(row, given):
    """Raises a `RecipeError` if a recipe's warm-up exceeds the requested run; warns if it exceeds half of it."""
    for length in ("epochs", "iterations"):
        warm_up = f"warmup_{length}"
        if warm_up in given or not 0 < given.get(length, 0) < 2 * getattr(row, warm_up, 0):
            continue
        asked, own = given[length], getattr(row, warm_up)
        both = f"{option(length)} {asked} {option(warm_up)} {round(asked * own / getattr(row, length))}"
        if own > asked:
            raise RecipeError(
                f"{warm_up} must be from 0 to {length}={asked}. Received: {warm_up}={own}, the recipe's value; for a "
                f"shorter run give {both}"
            )
        logger.warning(
            "the warm-up takes %d of %d %s, the recipe's value; for a shorter run give %s",
            own,
            asked,
            length,
            both,
        )


def explanations(kind):
    """Returns the help text of each field, from the docstrings of a recipe's class and its parents."""
    found = {}
    for cls in kind.__mro__[:-1]:
        lines = re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", cls.__doc__, flags=re.MULTILINE)
        found |= {name: re.sub(r"\s+", " ", text) for name, text in lines if name not in found}
    return found
