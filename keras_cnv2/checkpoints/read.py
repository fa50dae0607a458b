"""Files to `{name: array}`. Nothing here knows a model."""

import contextlib
import os
import zipfile

import h5py
import ml_dtypes
import numpy as np

SUFFIXES = (".keras", ".weights.h5")


def read(path):
    """Reads the weights in a file that Keras wrote, by the names of the layers that hold them.

    Args:
        path: Path of a `.keras` or `.weights.h5` file.

    Returns:
        Dict from "layer/.../layer/i" to the i-th weight of that layer, a NumPy array. Names of models are left out,
        so a backbone's layers are called the same alone and inside another model.

    Raises:
        ValueError: If `path` is no such path or the file is damaged.
        FileNotFoundError: If there is no file.
    """
    name = os.fspath(path) if isinstance(path, (str, os.PathLike)) else ""
    if not name.endswith(SUFFIXES):
        raise ValueError(
            f"Weights come from a path that ends in {' or '.join(SUFFIXES)} (this version knows no published weights "
            f"by tag). Received: {path!r}"
        )
    if not os.path.isfile(name):
        raise FileNotFoundError(f"There is no weights file at this path. Received: {path!r}")
    try:
        with _open_h5(name) as file:
            return _tensors(file)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"The weights file is damaged or none that Keras wrote. Received: {path!r}") from error


@contextlib.contextmanager
def _open_h5(path):
    """Opens the HDF5 part of a Keras file."""
    with contextlib.ExitStack() as stack:
        source = path
        if path.endswith(".keras"):
            source = stack.enter_context(zipfile.ZipFile(path)).open("model.weights.h5")
        yield stack.enter_context(h5py.File(source, "r"))


def _tensors(group, names=()):
    """Walks Keras's tree of groups. A layer's group has a group `vars`, which carries the layer's name."""
    tensors = {}
    if "vars" in group:
        for index, dataset in group["vars"].items():
            half = dataset.attrs.get("dtype") == "bfloat16"
            array = np.array(dataset, dtype=ml_dtypes.bfloat16 if half else None)
            tensors["/".join((*names, index))] = array
    for key, child in group.items():
        if key in ("vars", "optimizer", "seed_generator") or not isinstance(child, h5py.Group):
            continue
        is_layer = "vars" in child and "layers" not in child
        label = (child["vars"].attrs["name"],) if is_layer else ()
        tensors.update(_tensors(child, (*names, *label)))
    return tensors
