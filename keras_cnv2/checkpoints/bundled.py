"""Our own published weights, which a checkout of the project has beside the package."""

import hashlib
from pathlib import Path

from keras_cnv2.errors import CheckpointError

WEIGHTS = Path(__file__).parents[2] / "weights"


def checkout_file(row):
    """The path of a published checkpoint in the checkout that this package is part of.

    Args:
        row: `Checkpoint`.

    Returns:
        A `Path`, or `None`: there is no checkout, or the weights are not ours.
    """
    path = WEIGHTS / f"{row.name}.safetensors"
    return path if row.sha256 and path.is_file() else None


def check_file(row, path):
    """Raises a `CheckpointError` if a file is not the one that was published, as far as the row can tell."""
    if row.sha256 is None:
        return
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != row.sha256:
        raise CheckpointError(
            f"The file is not the published {row.name}: its SHA-256 is not {row.sha256}. Remove it, or give its path "
            f"as weights to load it as a file of your own. Received: {path} with {found}"
        )
