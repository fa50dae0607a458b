"""The argument `weights` of the models: the tag of published weights, a file, a folder, or a repository of the hub."""

import contextlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_cnv2.checkpoints.architecture import architecture_of
from keras_cnv2.checkpoints.bundled import check_file, checkout_file
from keras_cnv2.checkpoints.configuration import Configuration
from keras_cnv2.checkpoints.hub import download
from keras_cnv2.checkpoints.hub_folder import (
    KERAS,
    LocalFolder,
    Repository,
    configuration_of,
    folder_of,
    is_hub_folder,
    is_repository,
    tell_licence,
    weights_in,
)
from keras_cnv2.checkpoints.load import load_contents
from keras_cnv2.checkpoints.model_folder import is_model_folder
from keras_cnv2.checkpoints.read import READERS, file_at, is_path, open_checkpoint
from keras_cnv2.checkpoints.read_keras import metadata_at
from keras_cnv2.checkpoints.registry import Checkpoint, find_checkpoint, find_file
from keras_cnv2.checkpoints.tensor import shape_of
from keras_cnv2.checkpoints.translate import translate
from keras_cnv2.errors import CheckpointError
from keras_cnv2.sizes import SIZES, size_of

# Suffixes of the files that may hold metadata of their own.
WITH_METADATA = (".keras", ".safetensors")


class Found(NamedTuple):
    """Weights that were found, before anything but their configuration is downloaded.

    Args:
        name: What the user gave.
        row: The registry's row for published weights, or for a file that is called like them; or `None`.
        folder: The folder or repository that holds the weights and their configuration, or `None`.
        configuration: `Configuration` of the folder, or `None`.
        is_whole_folder: Whether the folder was given, not a file in it.
    """

    name: object
    row: Checkpoint | None = None
    folder: LocalFolder | Repository | None = None
    configuration: Configuration | None = None
    is_whole_folder: bool = False

    @property
    def stem_stride(self):
        """The stem's stride, or `None` if it is not known."""
        return next((known.stem_stride for known in (self.row, self.configuration) if known), None)

    @property
    def classes(self):
        """The number of classes, or `None` if it is not known or there is no head."""
        if self.row:
            return len(self.row.metadata["class_names"]) if self.row.has_head else None
        return (self.configuration and self.configuration.classes) or None


class Weights(NamedTuple):
    """Weights that are on this machine.

    Args:
        path: Path of their file.
        metadata: Known facts in addition to the file's own metadata, see `keras_cnv2.checkpoints.metadata`.
        configuration: `Configuration` that stands beside them, or `None`.
    """

    path: Path
    metadata: dict
    configuration: Configuration | None = None


def is_source(weights):
    """Whether `weights` is a path, a folder or a repository; any other string names published weights."""
    return is_repository(weights) or is_hub_folder(weights) or is_path(weights)


def find_weights(weights, size=None):
    """Finds weights, and reads the configuration beside them. Published weights are only looked up.

    Args:
        weights: Tag or full name of a published checkpoint, optionally followed by "@" and a revision of its
            repository; "hf://owner/name" or "hf://owner/name@revision"; or the path of a file or a folder.
        size: Name of the size, for a tag.

    Returns:
        `Found`.

    Raises:
        CheckpointError: If there are no such weights, or their configuration cannot be downloaded or is invalid.
    """
    if not is_source(weights):
        return Found(weights, find_checkpoint(weights, size))
    if is_model_folder(weights):
        return Found(weights)
    folder = folder_of(weights)
    row = None if is_repository(weights) else find_file(Path(weights))
    is_whole_folder = is_repository(weights) or is_hub_folder(weights)
    return Found(weights, row, folder, folder and configuration_of(folder), is_whole_folder)


def fetch(found):
    """Returns the `Weights` that were found, and downloads them if necessary.

    A checkout of the project holds its own weights already.

    Raises:
        CheckpointError: If they cannot be downloaded, or there are none.
    """
    weights, row, folder, configuration, is_whole_folder = found
    if is_whole_folder:
        path = weights_in(folder, configuration is not None)
        tell_licence(folder, configuration)
        origin = folder.origin(path)
        known = {"pretrained": origin} if origin else {}
        return Weights(path, known, None if path.name == KERAS else configuration)
    if is_source(weights):
        return Weights(file_at(weights), row.metadata if row else {}, configuration)
    told = {"repository": row.repository, "file": row.file}
    if path := checkout_file(row):
        told["sha256"] = check_file(row, path)
    else:
        path, told["commit"], told["sha256"] = download(row)
    return Weights(path, {**row.metadata, "pretrained": told})


def fetch_weights(weights, size=None):
    """Finds weights and downloads them if necessary: `fetch` of `find_weights`."""
    return fetch(find_weights(weights, size))


def find_for(weights, depths, dims):
    """Calls `find_weights` for a model of these depths and dims; returns `None` for `None`."""
    if weights is None:
        return None
    size = size_of(depths, dims)
    if size is None and not is_source(weights):
        raise CheckpointError(
            f"Published weights are for the sizes {', '.join(SIZES)}. Give a size, or a path that ends in "
            f"{', '.join(READERS)}. Received: weights={weights!r} with depths={tuple(depths)}, dims={tuple(dims)}"
        )
    return find_weights(weights, size)


def stem_stride_for(found, given):
    """Returns the stem's stride of a model: the given one, else that of its weights if it is known, else 4.

    Args:
        found: The return value of `find_for`.
        given: Int or `None`.

    Raises:
        CheckpointError: If the weights have another stride than the given one.
    """
    own = found and found.stem_stride
    if own is None:
        return 4 if given is None else given
    if given not in (None, own):
        raise CheckpointError(
            f"The weights {found.row.name if found.row else found.name} need stem_stride={own}: leave stem_stride out, "
            f"or give other weights. Received: stem_stride={given}"
        )
    return own


def known_of(source):
    """Returns the metadata of `Weights`, an empty dict for `None`, before a model is built for them.

    If a configuration stands beside the weights, they are compared.

    Raises:
        CheckpointError: If the configuration does not describe the weights, or they cannot be read.
    """
    if source is None or not (source.configuration or source.path.name.endswith(WITH_METADATA)):
        return {}
    if source.path.suffix == ".keras" and not source.configuration:
        return metadata_at(source.path) if source.path.is_file() else {}  # it is missed where it is opened
    with open_weights(source) as contents:
        return contents.metadata


def statistics_for(known, channels, mean, std):
    """Returns mean and standard deviation of a model's images: the given ones, else those of its weights, or `None`.

    Args:
        known: The return value of `known_of`.
        channels: Int, the number of channels of the images. From weights for another number, the average is taken.
        mean, std: As in `keras_cnv2.ConvNeXtV2`.
    """

    def adopted(values):
        return values if values is None or len(values) == channels else (float(np.mean(values)),) * channels

    return tuple(adopted(known.get(name)) if own is None else own for name, own in (("mean", mean), ("std", std)))


@contextlib.contextmanager
def open_weights(weights):
    """Opens the `Weights` of `fetch_weights` like `open_checkpoint`, and adds what is known of them to their metadata.

    Raises:
        CheckpointError: If they cannot be read, or the configuration beside them describes another model.
    """
    with open_checkpoint(weights.path) as contents:
        known = dict(weights.metadata)
        translation = translate(contents.tensors)
        head = translation.tensors.get("head/bias")
        if head and shape_of(head.array) != (len(known.get("class_names", ())),):
            known.pop("class_names", None)  # the user's own file, which has the name of a published one
        told = {"pretrained": known["pretrained"]} if "pretrained" in known else {}  # overrides the file's own entry
        if weights.configuration:
            told |= _configured(weights.configuration, translation)
        yield contents._replace(metadata={**known, **contents.metadata, **told}, translation=translation)


def _configured(configuration, translation):
    """Compares weights with their configuration, and returns its metadata."""
    found = architecture_of({path: tensor.shape_here for path, tensor in translation.tensors.items()})
    configuration.compare(found)
    return configuration.metadata_for(found.channels)


def load_weights(model, weights, other_classes=False):
    """Loads the `Weights` of `fetch_weights` into a model; `other_classes` is as in `load_contents`."""
    with open_weights(weights) as contents:
        load_contents(model, contents, other_classes)
