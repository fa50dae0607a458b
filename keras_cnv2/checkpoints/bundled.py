"""The weights that this project publishes itself: a checkout of the project has them in the folder weights/."""

import hashlib
from pathlib import Path

from keras_cnv2.errors import CheckpointError

WEIGHTS = Path(__file__).parents[2] / "weights"


def checkout_file(row):
    """Returns the path of a published checkpoint in the checkout that this package is part of.

    Args:
        row: `Checkpoint`.

    Returns:
        A `Path`, or `None` if there is no checkout or it does not have these weights.
    """
    path = WEIGHTS / f"{row.name}.safetensors"
    return path if row.sha256 and path.is_file() else None


def check_file(row, path):
    """Returns the SHA-256 of a file of the checkout; raises a `CheckpointError` if it differs from the row's."""
    found = sha256_of(path)
    if found != row.sha256:
        raise CheckpointError(
            f"The file is not the published {row.name}: its SHA-256 is not {row.sha256}. Remove it, or give its path "
            f"as weights to load it as a file of your own. Received: {path} with {found}"
        )
    return found


def sha256_of(path):
    """Returns the SHA-256 of a file in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
