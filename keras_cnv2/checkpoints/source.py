"""The argument `weights` of the models: the tag of published weights, or a path."""

import contextlib
from pathlib import Path
from typing import NamedTuple

from keras_cnv2.checkpoints.bundled import check_file, checkout_file
from keras_cnv2.checkpoints.hub import download
from keras_cnv2.checkpoints.load import load_contents
from keras_cnv2.checkpoints.read import READERS, file_at, is_path, open_checkpoint
from keras_cnv2.checkpoints.registry import find_checkpoint, find_file
from keras_cnv2.checkpoints.tensor import shape_of
from keras_cnv2.checkpoints.translate import translate
from keras_cnv2.errors import CheckpointError
from keras_cnv2.sizes import SIZES, size_of


class Weights(NamedTuple):
    """Weights that are on this machine.

    Args:
        path: Path of their file.
        metadata: Known facts in addition to the file's own metadata, see `keras_cnv2.checkpoints.metadata`.
    """

    path: Path
    metadata: dict


def fetch_weights(weights, size=None):
    """Finds weights, and downloads them if necessary. A checkout of the project holds its own weights already.

    Args:
        weights: Tag or full name of a published checkpoint, optionally followed by "@" and a revision of its
            repository; or a path.
        size: Name of the size, for a tag.

    Returns:
        `Weights`.

    Raises:
        CheckpointError: If there are no such weights, or they cannot be downloaded.
    """
    if is_path(weights):
        path = file_at(weights)
        row = find_file(path)
        return Weights(path, row.metadata if row else {})
    row = find_checkpoint(weights, size)
    found = {"repository": row.repository, "file": row.file}
    if path := checkout_file(row):
        found["sha256"] = check_file(row, path)
    else:
        path, found["commit"], found["sha256"] = download(row)
    return Weights(path, {**row.metadata, "pretrained": found})


def fetch_weights_for(weights, depths, dims):
    """Calls `fetch_weights` for a model of these depths and dims; returns `None` for `None`.

    Called before the model is built, so that a wrong name or a lost connection is reported at once.
    """
    return None if weights is None else fetch_weights(weights, size_of(depths, dims))


def published(weights, depths, dims):
    """Returns the registry's row for published weights of a model of these depths and dims, without fetching them.

    Args:
        weights: As in `fetch_weights`, or `None`.

    Returns:
        A `Checkpoint`, or `None` for the user's own weights and for `weights=None`.
    """
    if weights is None:
        return None
    if is_path(weights):
        return find_file(Path(weights))
    size = size_of(depths, dims)
    if size is None:
        raise CheckpointError(
            f"Published weights are for the sizes {', '.join(SIZES)}. Give a size, or a path that ends in "
            f"{', '.join(READERS)}. Received: weights={weights!r} with depths={tuple(depths)}, dims={tuple(dims)}"
        )
    return find_checkpoint(weights, size)


def stem_stride_for(row, given):
    """Returns the stem's stride of a model: the given one, else that of published weights, else 4.

    Args:
        row: The return value of `published`.
        given: Int or `None`.

    Raises:
        CheckpointError: If the weights have another stride than the given one.
    """
    if row is None:
        return 4 if given is None else given
    if given not in (None, row.stem_stride):
        raise CheckpointError(
            f"The weights {row.name} need stem_stride={row.stem_stride}: leave stem_stride out, or give other weights. "
            f"Received: stem_stride={given}"
        )
    return row.stem_stride


def statistics_for(source, mean, std):
    """Returns mean and standard deviation of a model's images: the given ones, else those of its weights, or `None`.

    Args:
        source: `Weights`, or `None`.
        mean, std: As in `keras_cnv2.ConvNeXtV2`.
    """
    if source is None or None not in (mean, std):
        return mean, std
    with open_weights(source) as contents:
        known = contents.metadata
    return tuple(known.get(name) if own is None else own for name, own in (("mean", mean), ("std", std)))


@contextlib.contextmanager
def open_weights(weights):
    """Opens the `Weights` of `fetch_weights` like `open_checkpoint`, and adds their metadata to those of the file."""
    with open_checkpoint(weights.path) as contents:
        known = dict(weights.metadata)
        translation = translate(contents.tensors)
        head = translation.tensors.get("head/bias")
        if head and shape_of(head.array) != (len(known.get("class_names", ())),):
            known.pop("class_names", None)  # the user's own file, which has the name of a published one
        told = {"pretrained": known["pretrained"]} if "pretrained" in known else {}  # overrides the file's own entry
        yield contents._replace(metadata={**known, **contents.metadata, **told}, translation=translation)


def load_weights(model, weights, other_classes=False):
    """Loads the `Weights` of `fetch_weights` into a model; `other_classes` is as in `load_contents`."""
    with open_weights(weights) as contents:
        load_contents(model, contents, other_classes)
