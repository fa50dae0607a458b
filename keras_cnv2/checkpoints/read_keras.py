"""`.keras` and `.weights.h5` files, by the names of the layers that hold the weights.

Keras's own loader goes by order and kind of layers, and takes the wrong ones in silence.
"""

import json
import zipfile

import h5py
import ml_dtypes
import numpy as np

from keras_cnv2.checkpoints.lazy import LazyArray
from keras_cnv2.checkpoints.metadata import check_metadata


def open_keras(path, stack):
    """Tensors, metadata and configuration in a file that Keras wrote.

    The i-th weight of a layer is called "layer/.../layer/i". Names of models are left out, so a backbone's layers are
    called the same alone and inside another model.
    """
    source, config = path, None
    if path.suffix == ".keras":
        archive = stack.enter_context(zipfile.ZipFile(path))
        config = json.loads(archive.read("config.json"))
        source = stack.enter_context(archive.open("model.weights.h5"))
    tensors = _tensors(stack.enter_context(h5py.File(source, "r")))
    return tensors, _metadata(config), config


def _metadata(config):
    """What travels with the weights stands in a classifier's configuration, under the same names."""
    is_classifier = config is not None and config["registered_name"] == "keras_cnv2>ConvNeXtV2"
    arguments = config["config"] if is_classifier else {}
    return check_metadata({name: value for name, value in arguments.items() if value is not None})


def _tensors(group, names=()):
    """Walks Keras's tree of groups. A layer's group has a group `vars`, which carries the layer's name."""
    tensors = {}
    if "vars" in group:
        tensors.update({"/".join((*names, index)): _lazy(dataset) for index, dataset in group["vars"].items()})
    for key, child in group.items():
        if key in ("vars", "optimizer", "seed_generator") or not isinstance(child, h5py.Group):
            continue
        is_layer = "vars" in child and "layers" not in child
        label = (child["vars"].attrs["name"],) if is_layer else ()
        tensors.update(_tensors(child, (*names, *label)))
    return tensors


def _lazy(dataset):
    # HDF5 has no bfloat16: Keras stores the bytes and says so in an attribute.
    dtype = np.dtype(ml_dtypes.bfloat16) if dataset.attrs.get("dtype") == "bfloat16" else dataset.dtype
    return LazyArray(dataset.shape, dtype, lambda: np.array(dataset, dtype=dtype))
