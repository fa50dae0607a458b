"""Names of options, and the values that their text stands for, of the types that a recipe's fields have."""

import argparse
import math
import types
import typing
from pathlib import Path


def option(name):
    """Returns the option of a field: `--base-lr` for "base_lr"."""
    return "--" + name.replace("_", "-")


def choices(annotation):
    """Returns the alternatives of a type annotation, as a tuple."""
    return typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)


def type_names(annotation):
    """Returns the names of a type's alternatives, for help and errors."""

    def name(kind):
        if kind is types.NoneType:
            return "none"
        if parts := typing.get_args(kind):
            return ",".join("..." if part is ... else part.__name__ for part in parts)
        return {bool: "true|false"}.get(kind, kind.__name__)

    return [name(kind) for kind in choices(annotation)]


def converter(annotation):
    """Returns a function that converts text to a value of the annotated type."""

    def convert(text):
        for kind in choices(annotation):
            try:
                return _value(text, kind)
            except ValueError:
                continue
        allowed = " or ".join(type_names(annotation))
        raise argparse.ArgumentTypeError(f"must be {allowed}. Received: {text!r}")

    return convert


def parts_of(kind, count):
    """Returns the types of a tuple's elements; `count` of them if the tuple may have any length."""
    parts = typing.get_args(kind)
    return parts[:1] * count if ... in parts else parts


# Values that are written as words.
WORDS = {types.NoneType: {"none": None}, bool: {"true": True, "false": False}}


def _value(text, kind):
    """Converts text to one type without alternatives. Raises a `ValueError` if that is not possible."""
    parts = typing.get_args(kind)
    if parts:
        texts = text.split(",")
        parts = parts_of(kind, len(texts))
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


def positive_int(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive int. Received: {text!r}")
    return int(text)


def folder_name(text):
    if text == ".." or not text or Path(text).name != text:
        raise argparse.ArgumentTypeError(f"must be a plain folder name. Received: {text!r}")
    return text
