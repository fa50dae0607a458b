"""Translates the names of the tensors in a file to Keras paths."""

from typing import NamedTuple

from keras_cnv2.checkpoints import names
from keras_cnv2.checkpoints.tensor import Tensor, shape_of
from keras_cnv2.errors import CheckpointError


class Translation(NamedTuple):
    """The tensors of a checkpoint by Keras path.

    Args:
        dialect: The `Dialect` that the names belong to.
        tensors: Dict from Keras paths to `Tensor`.
        left_over: List of the names that the dialect does not know.
    """

    dialect: names.Dialect
    tensors: dict[str, Tensor]
    left_over: list[str]


def translation_of(contents):
    """Returns the `Translation` of open `Contents`; it is only computed if the contents do not have it already."""
    return contents.translation or translate(contents.tensors)


def translate(tensors):
    """Detects the dialect of a dict from names to arrays, and translates the names.

    Returns:
        A `Translation`.

    Raises:
        CheckpointError: If no name belongs to any dialect.
    """
    are_names = all(isinstance(name, str) for name in tensors)
    dialect = names.detect({name: shape_of(array) for name, array in tensors.items()}) if are_names else None
    if dialect is None:
        raise CheckpointError(
            "These tensors do not have the names of a ConvNeXt V2 in any known naming, nothing was loaded. "
            f"Received: {len(tensors)} tensors called {[*tensors][:5]}"
        )
    found = {name: dialect.path_of(name) for name in tensors}
    known = {place[0]: Tensor(place[0], name, place[1], tensors[name]) for name, place in found.items() if place}
    return Translation(dialect, known, [name for name, place in found.items() if place is None])
