"""Checks of arguments, with one wording for all error messages."""

from numbers import Integral, Real


def is_positive_int(value):
    """Whether `value` is an int above zero. NumPy ints count, bools do not."""
    return isinstance(value, Integral) and not isinstance(value, bool) and value > 0


def positive_int(name, value):
    """Returns `value` as an int, or raises a `ValueError` that names the argument."""
    if not is_positive_int(value):
        raise ValueError(f"{name} must be a positive int. Received: {name}={value!r}")
    return int(value)


def number(name, value, allowed, is_allowed, kind=Real):
    """Returns `value`, or raises a `ValueError` that names the argument.

    Args:
        name: The argument's name.
        value: The value that was given. NumPy numbers are allowed, bools are not.
        allowed: The allowed values in words, for the message.
        is_allowed: Function that takes the value and returns whether it is allowed.
        kind: `numbers.Real`, or `numbers.Integral` to allow ints only.
    """
    if not isinstance(value, kind) or isinstance(value, bool) or not is_allowed(value):
        raise ValueError(f"{name} must be {allowed}. Received: {name}={value!r}")
    return value


def fraction(name, value):
    """Returns `value`, a number in `[0, 1)`, or raises a `ValueError` that names the argument."""
    return number(name, value, "a number in [0, 1)", lambda x: 0 <= x < 1)
