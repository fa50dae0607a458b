"""Messages about faulty data. Imports no TensorFlow."""

import logging
from collections import Counter

from ..errors import DataError

logger = logging.getLogger(__name__)

# Maximum number of names quoted in a message.
QUOTED = 5


def quote(names):
    """Returns the first names of a list as text for a message."""
    rest = len(names) - QUOTED
    return ", ".join(names[:QUOTED]) + (f" and {rest} more" if rest > 0 else "")


def say_left_out(path, left_out):
    """Logs in one line which files in a picture folder are not used, a `LeftOut`."""
    if left_out:
        logger.warning("%s: left out, because they are not readable pictures: %s", path, left_out)


def check_names(names, source="classes"):
    """Raises a `DataError` if two classes share a name: results would be attributed to the wrong class.

    Args:
        names: Strings.
        source: Where the names come from, for the message.
    """
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise DataError(f"classes must have different names. Received: {source} with {quote(repeated)} more than once")
