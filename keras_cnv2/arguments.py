"""Checks of arguments, with one wording."""

from numbers import Integral


def is_positive_int(value):
    """Whether `value` is an int above zero, NumPy's included and bools excluded."""
    return isinstance(value, Integral) and not isinstance(value, bool) and value > 0


def positive_int(name, value):
    """Returns `value` as an int, or raises a `ValueError` that names it."""
    if not is_positive_int(value):
        raise ValueError(f"{name} must be a positive int. Received: {name}={value!r}")
    return int(value)
