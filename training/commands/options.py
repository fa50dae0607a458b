"""A recipe's fields as options of the command line."""

import argparse
import dataclasses
import math
import re
import types
import typing


def add_options(parser, rows, default):
    """Adds `--recipe` and an option for each field of the recipes.

    Args:
        parser: An `argparse` parser.
        rows: Dict from names to recipes of one class.
        default: Name of the recipe that is taken where none is given.
    """
    kind = type(rows[default])
    parser.add_argument(
        "--recipe", choices=rows, default=default, metavar="NAME", help="one of `recipes` (default: %(default)s)"
    )
    meanings = explanations(kind)
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
    """The recipe that was asked for, with the fields that were given.

    Raises:
        RecipeError: If a field has an impossible value.
    """
    row = rows[args.recipe]
    given = {field.name: getattr(args, field.name) for field in dataclasses.fields(row) if hasattr(args, field.name)}
    if given.get("model") and row.depths:  # a published size in place of the row's own architecture
        given = {"depths": None, "dims": None, **given}
    elif given.get("depths") and row.model:
        given = {"model": None, **given}
    return dataclasses.replace(row, **given)


def option(name):
    """The option of a field: `--base-lr` for "base_lr"."""
    return "--" + name.replace("_", "-")


def explanations(kind):
    """What each field means, from the docstrings of a recipe's class and its parents."""
    found = {}
    for cls in kind.__mro__[:-1]:
        lines = re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", cls.__doc__, flags=re.MULTILINE)
        found |= {name: re.sub(r"\s+", " ", text) for name, text in lines if name not in found}
    return found


def choices(annotation):
    """The alternatives of a type annotation, as a tuple."""
    return typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)


def type_names(annotation):
    """How values of a type are written, for help and errors."""

    def name(kind):
        if kind is types.NoneType:
            return "none"
        parts = typing.get_args(kind)
        return ",".join(part.__name__ for part in parts) if parts else {bool: "true|false"}.get(kind, kind.__name__)

    return [name(kind) for kind in choices(annotation)]


def converter(annotation):
    """A function from text to a value of the annotated type."""

    def convert(text):
        for kind in choices(annotation):
            try:
                return _value(text, kind)
            except ValueError:
                continue
        allowed = " or ".join(type_names(annotation))
        raise argparse.ArgumentTypeError(f"must be {allowed}. Received: {text!r}")

    return convert


# Values that are words.
WORDS = {types.NoneType: {"none": None}, bool: {"true": True, "false": False}}


def _value(text, kind):
    """The text as one plain type. Raises a `ValueError` if it is none of that."""
    parts = typing.get_args(kind)
    if parts:
        texts = text.split(",")
        if len(texts) != len(parts):
            raise ValueError(text)
        return tuple(_value(part, of) for part, of in zip(texts, parts))
    if kind in WORDS:
        if text.lower() not in WORDS[kind]:
            raise ValueError(text)
        return WORDS[kind][text.lower()]
    value = kind(text)
    if (kind is float and not math.isfinite(value)) or (kind is str and text.lower() in ("", "none")):
        raise ValueError(text)
    return value
