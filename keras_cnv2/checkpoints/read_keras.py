"""`.keras` and `.weights.h5` files, by the names of the layers that hold the weights.

Keras's own loader goes by order and kind of layers, and takes the wrong ones in silence.
"""

import json

import h5py
import ml_dtypes
import numpy as np

from keras_cnv2.checkpoints.lazy_array import LazyArray
from keras_cnv2.checkpoints.metadata import check_metadata
from keras_cnv2.checkpoints.read_zip import open_zip
from keras_cnv2.errors import CheckpointError

CHUNK = 1 << 20


def open_keras(path, stack):
    """Tensors, metadata and configuration in a file that Keras wrote.

    The i-th weight of a layer is called "layer/.../layer/i". Names of models are left out, so a backbone's layers are
    called the same alone and inside another model.
    """
    source, config = path, None
    if path.suffix == ".keras":
        archive = open_zip(stack.enter_context(path.open("rb")), stack)
        config = json.loads(archive.read("config.json"))
        if not isinstance(config["config"], dict):
            raise ValueError("no configuration of a model")
        with archive.open("model.weights.h5") as entry:
            while entry.read(CHUNK):  # to the end, where the checksum is compared
                pass
        source = stack.enter_context(archive.open("model.weights.h5"))
    tensors = _tensors(stack.enter_context(h5py.File(source, "r")), set())
    return tensors, _metadata(config), config


def _metadata(config):
    """What travels with the weights stands in a classifier's configuration, under the same names.

    Not so the activation, which may be any function there: who builds the model reads it in the configuration.
    """
    is_classifier = config is not None and config["registered_name"] == "keras_cnv2>ConvNeXtV2"
    arguments = config["config"] if is_classifier else {}
    left_out = ("classifier_activation",)
    return check_metadata({k: v for k, v in arguments.items() if v is not None and k not in left_out})


def _tensors(group, seen, names=()):
    """Walks Keras's tree of groups. A layer's group has a group `vars`, which carries the layer's name."""
    tensors = {}
    for key, child in _members(group, seen):
        if key == "vars":
            tensors.update({"/".join((*names, index)): _lazy(dataset) for index, dataset in _members(child, seen)})
        elif key not in ("optimizer", "seed_generator") and isinstance(child, h5py.Group):
            is_layer = "vars" in child and "layers" not in child
            label = (_member(child, "vars").attrs["name"],) if is_layer else ()
            tensors.update(_tensors(child, seen, (*names, *label)))
    return tensors


def _members(group, seen):
    """Names and members of a group. None is met twice: few groups can hold each other along endlessly many paths."""
    for key in group:
        member = _member(group, key)
        if member in seen:
            raise CheckpointError("the file holds a group or an array twice, which Keras never writes.")
        seen.add(member)
        yield key, member


def _member(group, key):
    # HDF5 can refer to arrays in any file of this machine.
    if not isinstance(group.get(key, getlink=True), h5py.HardLink):
        raise CheckpointError("the file refers to weights elsewhere, which Keras never writes.")
    return group[key]


def _lazy(dataset):
    stored = dataset.size * dataset.dtype.itemsize == dataset.id.get_storage_size()
    if dataset.external or dataset.is_virtual or dataset.chunks or not stored:
        raise CheckpointError("the file holds arrays that are elsewhere, compressed or cut, which Keras never writes.")
    # HDF5 has no bfloat16: Keras stores the bytes and says so in an attribute.
    dtype = np.dtype(ml_dtypes.bfloat16) if dataset.attrs.get("dtype") == "bfloat16" else dataset.dtype
    return LazyArray(dataset.shape, dtype, lambda: np.array(dataset, dtype=dtype))
