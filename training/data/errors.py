"""What is wrong with data, and how messages tell it. Imports no TensorFlow."""

import logging
from collections import Counter

from ..errors import DataError

logger = logging.getLogger(__name__)

# How many names a message quotes.
QUOTED = 5


def quote(names):
    """The first of some names, for a message."""
    rest = len(names) - QUOTED
    return ", ".join(names[:QUOTED]) + (f" and {rest} more" if rest > 0 else "")


def say_left_out(path, left_out):
    """Logs in one line what lies among the pictures of a folder and is not taken, a `LeftOut`."""
    if left_out:
        logger.warning("%s: left out, as they are no pictures that are read: %s", path, left_out)


def check_names(names, source="classes"):
    """Raises a `DataError` if two classes have one name: figures would be put down to the wrong one.

    Args:
        names: Strings.
        source: What they are from, for the message.
    """
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise DataError(f"classes must have different names. Received: {source} with {quote(repeated)} more than once")
