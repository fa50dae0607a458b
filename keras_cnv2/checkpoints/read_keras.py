"""Reads `.keras` and `.weights.h5` files. Weights are identified by the names of their layers.

Keras's own loader identifies them by the class and order of the layers, and can silently load the wrong ones.
"""

import contextlib
import io
import json
import posixpath
from collections import deque

from keras_cnv2.checkpoints.lazy_array import LazyArray, damaged
from keras_cnv2.checkpoints.metadata import check_metadata
from keras_cnv2.checkpoints.read_hdf5 import open_hdf5
from keras_cnv2.checkpoints.read_zip import open_zip, place_of
from keras_cnv2.errors import CheckpointError

CHUNK = 1 << 20
# Groups that hold no weights of layers.
LEFT_OUT = {"optimizer", "seed_generator"}
# What normalises images with a mean and a deviation that its configuration holds.
NORMALIZING = {f"keras_cnv2>{name}" for name in ("ConvNeXtV2", "ConvNeXtV2Backbone", "Preprocessing")}


def open_keras(path, stack):
    """Returns tensors, metadata and configuration of a file that Keras wrote.

    The i-th weight of a layer is named "layer/.../layer/i". Names of models are left out, so a backbone's layers have
    the same names alone and inside another model.
    """
    file, config = stack.enter_context(path.open("rb", buffering=0)), None
    place = 0, file.seek(0, io.SEEK_END)
    if path.suffix == ".keras":
        archive = open_zip(file, stack)
        config = json.loads(archive.read("config.json"))
        if not isinstance(config["config"], dict):
            raise ValueError("config.json is not the configuration of a model")
        with archive.open("model.weights.h5") as entry:
            while entry.read(CHUNK):  # `zipfile` compares the checksum when the end is reached
                pass
        place = place_of(file, archive.getinfo("model.weights.h5"))
    return _tensors(open_hdf5(file, *place)), metadata_in(config), config


def metadata_at(path):
    """Returns the metadata of a `.keras` file; its weights are not read.

    Raises:
        CheckpointError: If the file is damaged.
    """
    try:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(open(path, "rb"))
            return metadata_in(json.loads(open_zip(file, stack).read("config.json")))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except Exception as error:  # of many kinds, for damaged files
        raise CheckpointError(f"{path}: {damaged(error)}") from error


def metadata_in(config):
    """Returns the metadata in a model's configuration: a classifier's configuration has them under the same names.

    Of any other model they are only the mean and deviation of the encoder in it. The activation is left out, since it
    may be any function there; it is read when the model is built.
    """
    is_classifier = config is not None and config.get("registered_name") == "keras_cnv2>ConvNeXtV2"
    arguments = config["config"] if is_classifier else _statistics_in(config)
    left_out = ("classifier_activation",)
    return check_metadata({k: v for k, v in arguments.items() if v is not None and k not in left_out})


def _statistics_in(config):
    """Returns "mean" and "std" of the encoder or the layer that normalises images in a model, if it names them."""
    entries = deque([config])
    while entries:
        entry = entries.popleft()
        if isinstance(entry, dict):
            arguments = entry.get("config")
            if entry.get("registered_name") in NORMALIZING and isinstance(arguments, dict):
                return {name: arguments.get(name) for name in ("mean", "std")}
        if isinstance(entry, (dict, list)):
            entries += entry.values() if isinstance(entry, dict) else entry
    return {}


def _tensors(members):
    """Collects names and arrays from Keras's tree of groups: a group `vars` holds the weights and name of a layer."""
    tensors = {}
    for path, array in members.items():
        group, key = posixpath.split(path)
        if posixpath.basename(group) != "vars" or LEFT_OUT & {*path.split("/")}:
            continue
        if not isinstance(array, LazyArray):
            raise ValueError(f"a group where an array is expected: {path}")
        name = "/".join([*_layers(members, posixpath.dirname(group)), key])
        # Two nested models may have layers with the same names. The suffix turns the second name into an unknown one.
        tensors[f"{name} ({path})" if name in tensors else name] = array
    return tensors


def _layers(members, group):
    """The names of the layers that contain a group, from the outermost one inwards, without models (with `layers`)."""
    names = []
    while group != "/":
        if f"{group}/vars" in members and f"{group}/layers" not in members:
            names.append(members[f"{group}/vars"])
        group = posixpath.dirname(group)
    return names[::-1]
