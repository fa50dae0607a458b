"""Holds out pictures for validation where data have no validation split."""

import hashlib
from pathlib import Path

from ..errors import DataError

# Names of validation folders and of validation splits in TensorFlow Datasets; the first one found is used.
VALIDATION_NAMES = ("val", "validation", "valid", "test")


def check_share(share):
    """Raises a `DataError` if the share of pictures to hold out is not from 0 to 1."""
    if not 0 <= share <= 1:
        raise DataError(f"validation_share must be from 0 to 1. Received: {share}")


def hold_out(names, share, seed):
    """Splits names in two by their hashes, so that the split changes little when names are added.

    Args:
        names: List of strings, or of numbers.
        share: Float from 0 to 1, the part to hold out. Unless it is 0 or 1, both parts have at least one name.
        seed: Int, selects the names that are held out.

    Returns:
        Two lists, for training and held out, both in the original order.
    """
    check_share(share)
    count = round(share * len(names))
    if share not in (0, 1):
        count = min(max(count, 1), len(names) - 1)

    def rank(name):
        return hashlib.sha256(f"{seed}/{name}".encode(errors="surrogateescape")).digest()

    chosen = {*sorted(names, key=rank)[:count]}
    return [name for name in names if name not in chosen], [name for name in names if name in chosen]


def hold_out_files(files, path, share, seed):
    """Applies `hold_out` to files, by their paths relative to the folder `path`."""
    below = {Path(file).relative_to(path).as_posix(): file for file in files}
    return tuple([below[name] for name in part] for part in hold_out([*below], share, seed))
