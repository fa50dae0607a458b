"""The argument `weights` of the models: a published tag or a path."""

import contextlib
from pathlib import Path
from typing import NamedTuple

from keras_cnv2.checkpoints.bundled import check_file, checkout_file
from keras_cnv2.checkpoints.convert import load_contents, shape_of, translate
from keras_cnv2.checkpoints.hub import download
from keras_cnv2.checkpoints.read import READERS, file_at, is_path, open_checkpoint
from keras_cnv2.checkpoints.registry import find_checkpoint, find_file
from keras_cnv2.errors import CheckpointError
from keras_cnv2.sizes import SIZES, size_of


class Weights(NamedTuple):
    """Weights that are on this machine.

    Args:
        path: Path of their file.
        metadata: What is known of them beside what the file says, see `keras_cnv2.checkpoints.metadata`.
    """

    path: Path
    metadata: dict


def fetch_weights(weights, size=None):
    """Finds weights, and downloads them if need be: our own are in a checkout already.

    Args:
        weights: Tag or full name of a published checkpoint, either with "@" and a revision of its repository if need
            be, or a path.
        size: Name of the size that a tag is for.

    Returns:
        `Weights`.

    Raises:
        CheckpointError: If there are no such weights, or they cannot be had.
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
    """`fetch_weights` for a model of these depths and dims; `None` stays `None`.

    Before the model is built, so that a wrong name or a lost connection is told at once.
    """
    return None if weights is None else fetch_weights(weights, size_of(depths, dims))


def published(weights, depths, dims):
    """What is known of published weights for a model of these depths and dims, before they are fetched.

    Args:
        weights: As in `fetch_weights`, or `None`.

    Returns:
        `Checkpoint`; `None` for weights of the user's own, and for none.
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
    """The stem's stride of a model: what is given, or else that of published weights, or else 4.

    Args:
        row: What `published` returned.
        given: Int or `None`.

    Raises:
        CheckpointError: If the weights have another one than is given.
    """
    if row is None:
        return 4 if given is None else given
    if given not in (None, row.stem_stride):
        raise CheckpointError(
            f"The weights {row.name} are of a stem of stride {row.stem_stride}: leave stem_stride out, or give weights "
            f"of such a stem. Received: stem_stride={given}"
        )
    return row.stem_stride


@contextlib.contextmanager
def open_weights(weights):
    """Opens what `fetch_weights` returned, as `open_checkpoint` does."""
    with open_checkpoint(weights.path) as contents:
        known = dict(weights.metadata)
        head = translate(contents.tensors)[1].get("head/bias")
        if head and shape_of(head.array) != (len(known.get("class_names", ())),):
            known.pop("class_names", None)  # a file of the user's own under a published name
        told = {"pretrained": known["pretrained"]} if "pretrained" in known else {}  # not what a file says of itself
        yield contents._replace(metadata={**known, **contents.metadata, **told})


def load_weights(model, weights, other_classes=False):
    """Loads what `fetch_weights` returned; `other_classes` as in `load_contents`."""
    with open_weights(weights) as contents:
        load_contents(model, contents, other_classes)
