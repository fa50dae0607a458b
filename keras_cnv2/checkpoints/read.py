"""Reads weights files: tensors by name, metadata and configuration. Nothing here depends on a model."""

import contextlib
import logging
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_cnv2.checkpoints.lazy_array import LazyArray, damaged
from keras_cnv2.checkpoints.model_folder import is_model_folder, models_in
from keras_cnv2.checkpoints.read_index import open_index
from keras_cnv2.checkpoints.read_keras import open_keras
from keras_cnv2.checkpoints.read_safetensors import open_safetensors
from keras_cnv2.checkpoints.read_torch import open_torch
from keras_cnv2.errors import CheckpointError

logger = logging.getLogger(__name__)

# The files of PyTorch may hold several state dicts: "FILE#KEY" is the one under this key.
TORCH = (".pt", ".pth", ".bin", ".ckpt", ".pth.tar")

READERS = {
    ".keras": open_keras,
    ".weights.h5": open_keras,
    ".safetensors": open_safetensors,
    **dict.fromkeys(TORCH, open_torch),
    **dict.fromkeys((".safetensors.index.json", ".bin.index.json"), open_index),
}


class Contents(NamedTuple):
    """The contents of a checkpoint.

    Args:
        tensors: Dict from names to arrays, NumPy or lazy.
        metadata: Dict, see `keras_cnv2.checkpoints.metadata`.
        config: The configuration of the Keras model in a `.keras` file or a checkpoint of training, or `None`.
        translation: The result of `keras_cnv2.checkpoints.translate.translate` for `tensors`, once it is known.
    """

    tensors: Mapping
    metadata: Mapping = {}
    config: Mapping | None = None
    translation: tuple | None = None


def is_path(source):
    """Whether `source` is a path: a `Path`, a string with the suffix of a weights file, or a folder with a model.json.

    The suffix may be followed by "#" and a key. Any other string is the name of published weights.
    """
    if isinstance(source, os.PathLike):
        return True
    return isinstance(source, str) and (without_key(source)[0].endswith(tuple(READERS)) or is_model_folder(source))


def without_key(path):
    """Splits the string "FILE#KEY" of a file of PyTorch. Returns the file, and the key or `None`."""
    file, sign, key = path.rpartition("#")
    return (file, key) if sign and key and file.endswith(TORCH) else (path, None)


def file_at(path):
    """Returns the path of a weights file: `path` itself, or the newest undamaged file of a folder with a model.json."""
    if not is_model_folder(path):
        return Path(path)
    newest, *older = models_in(path)
    if older and not _is_whole(newest):
        whole = next(filter(_is_whole, older), None)
        if whole:
            logger.warning("%s is damaged: an older file is used, %s", newest, whole.name)
            return whole
    return newest


def _is_whole(path):
    """Whether a file can be opened and its arrays can be read: only reading them compares their checksums."""
    try:
        with open_checkpoint(path) as contents:
            for array in contents.tensors.values():
                if isinstance(array, LazyArray):
                    np.asarray(array)
            return True
    except CheckpointError:
        return False


def without_suffix(name):
    """Removes the suffix of a weights file from a file name; returns any other name unchanged."""
    return next((name.removesuffix(suffix) for suffix in READERS if name.endswith(suffix)), name)


@contextlib.contextmanager
def open_checkpoint(path):
    """Opens a weights file. No code in it is run. Arrays are read on demand, inside the context.

    Args:
        path: Path of a file with one of the suffixes of `READERS`, or of a run's folder.

    Yields:
        `Contents`.

    Raises:
        CheckpointError: If `path` has another suffix, or the file is damaged or holds anything but weights.
        FileNotFoundError: If there is no file at this path.
    """
    name, key = without_key(os.fspath(file_at(path))) if is_path(path) else ("", None)
    reader = next((reader for suffix, reader in READERS.items() if name.endswith(suffix)), None)
    if reader is None:
        raise CheckpointError(f"The path of a weights file must end in one of {', '.join(READERS)}. Received: {path!r}")
    if not os.path.isfile(name):
        raise FileNotFoundError(f"There is no weights file at this path. Received: {os.fspath(path)!r}")
    with contextlib.ExitStack() as stack:
        try:
            yield _read(partial(reader, key=key) if key else reader, Path(name), stack)
        except CheckpointError as error:  # raised while reading the file, or inside the context, e.g. a misfit
            raise CheckpointError(f"{name}: {error}") from error


def _read(reader, path, stack):
    try:
        return Contents(*reader(path, stack))
    except CheckpointError:
        raise
    except Exception as error:  # the libraries raise many kinds of errors for damaged files
        raise damaged(error) from error
