"""Translates the names of the tensors in a file to Keras paths."""

import itertools
from typing import NamedTuple

from keras_cnv2.checkpoints import names
from keras_cnv2.checkpoints.tensor import Tensor, shape_of
from keras_cnv2.errors import CheckpointError

# The prefix of an encoder next to other layers, in models of trainers.
BACKBONE = "backbone."

# Counters that PyTorch's and OpenMMLab's classes for moving averages save next to the weights.
COUNTERS = ("n_averaged", "steps")


class Translation(NamedTuple):
    """The tensors of a checkpoint by Keras path.

    Args:
        dialect: The `Dialect` that the names belong to.
        tensors: Dict from Keras paths to `Tensor`.
        left_over: List of the names that the dialect does not know.
        around: List of the names of tensors that belong to layers around a "backbone".
    """

    dialect: names.Dialect
    tensors: dict[str, Tensor]
    left_over: list[str]
    around: list[str] = []


def translation_of(contents):
    """Returns the `Translation` of open `Contents`; it is only computed if the contents do not have it already."""
    return contents.translation or translate(contents.tensors)


def translate(tensors):
    """Detects the dialect of a dict from names to arrays, and translates the names.

    Wrappers of models put prefixes before the names ("module.", "_orig_mod.", "model.backbone."): one that all names
    share is taken off. In a larger model, the encoder is what lies under "backbone.".

    Returns:
        A `Translation`.

    Raises:
        CheckpointError: If no name belongs to any dialect.
    """
    are_names = all(isinstance(name, str) for name in tensors)
    shapes = {name: shape_of(array) for name, array in tensors.items()} if are_names else {}
    prefix, dialect = _detect(shapes)
    if dialect is None:
        raise CheckpointError(
            "These tensors do not have the names of a ConvNeXt V2 in any known naming, nothing was loaded. "
            f"Received: {len(tensors)} tensors called {[*tensors][:5]}"
        )
    within = [name for name in tensors if name.startswith(prefix)]
    found = {name: dialect.path_of(name.removeprefix(prefix)) for name in within}
    known = {place[0]: Tensor(place[0], name, place[1], tensors[name]) for name, place in found.items() if place}
    left_over = [name for name, place in found.items() if place is None]
    outside = [name for name in tensors if not name.startswith(prefix) and name not in COUNTERS]
    return Translation(dialect, known, left_over, outside)


def _detect(shapes):
    """Returns the prefix and the dialect with which most of the tensors are known, or `None` twice."""
    tried = [(prefix, *names.detect(_without(prefix, shapes))) for prefix in _prefixes(shapes)]
    # A dialect whose names begin with "backbone." is that of a classifier: if it knows no head, this is another model.
    prefix, dialect, known = max(tried, key=lambda found: (found[2], found[0].endswith(BACKBONE)))
    return (prefix, dialect) if known else (None, None)


def _without(prefix, shapes):
    return {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}


def _prefixes(shapes):
    """Returns the prefixes to try, the shortest first: none, those that all names share, and these with "backbone."."""
    parts = zip(*(name.split(".")[:-1] for name in shapes if name not in COUNTERS))
    shared = [first for first, *others in itertools.takewhile(lambda same: len({*same}) == 1, parts)]
    prefixes = ["".join(f"{part}." for part in shared[:count]) for count in range(len(shared) + 1)]
    inner = f"{prefixes[-1]}{BACKBONE}"
    return [*prefixes, *([inner] if any(name.startswith(inner) for name in shapes) else [])]
