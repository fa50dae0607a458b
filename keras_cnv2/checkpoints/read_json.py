"""Reads untrusted JSON files: the configurations in folders and repositories."""

import json

from keras_cnv2.errors import CheckpointError

# In bytes. The configuration of a model with 22,000 named classes has two million.
LIMIT = 1 << 25


def read_json(path):
    """Returns the object in a JSON file, a dict.

    Raises:
        CheckpointError: If the file cannot be read, is too large, or holds anything else.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(LIMIT + 1)
        if len(text) > LIMIT:
            raise ValueError(f"more than {LIMIT} bytes")
        found = json.loads(text.decode("utf-8"), parse_constant=_refuse)
        if not isinstance(found, dict):
            raise ValueError(f"{type(found).__name__} in place of an object")
        return found
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: this file must hold a JSON object. Get it again, or correct it. Received: {str(error)[:200]}"
        ) from error


def _refuse(constant):
    raise ValueError(f"the number {constant}")
