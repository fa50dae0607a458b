"""Checks of arguments, with one wording."""

from numbers import Integral, Real


def is_positive_int(value):
    """Whether `value` is an int above zero, NumPy's included and bools excluded."""
    return isinstance(value, Integral) and not isinstance(value, bool) and value > 0


def positive_int(name, value):
    """Returns `value` as an int, or raises a `ValueError` that names it."""
    if not is_positive_int(value):
        raise ValueError(f"{name} must be a positive int. Received: {name}={value!r}")
    return int(value)


def number(name, value, allowed, is_allowed, kind=Real):
    """Returns `value`, or raises a `ValueError` that names it.

    Args:
        name: The argument's name.
        value: What was given; NumPy's numbers are allowed, bools are not.
        allowed: What it must be, in words.
        is_allowed: Function of a number, whether it is that.
        kind: `numbers.Real`, or `numbers.Integral` for ints alone.
    """
    if not isinstance(value, kind) or isinstance(value, bool) or not is_allowed(value):
        raise ValueError(f"{name} must be {allowed}. Received: {name}={value!r}")
    return value


def fraction(name, value):
    """Returns `value`, a number in `[0, 1)`, or raises a `ValueError` that names it."""
    return number(name, value, "a number in [0, 1)", lambda x: 0 <= x < 1)
