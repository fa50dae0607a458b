"""What reading a file must be like."""

import contextlib
import time
import tracemalloc

import h5py
import numpy as np
import pytest

import keras_cnv2
from keras_cnv2.checkpoints.read import open_checkpoint

# Of the error for most of what can be wrong with a file.
DAMAGED = "damaged, incomplete or not of the type"


def read(path):
    with open_checkpoint(path) as contents:
        return contents


def load(path):
    with open_checkpoint(path) as contents:
        return {name: np.array(tensor) for name, tensor in contents.tensors.items()}


def assert_refused(path, match=None):
    with pytest.raises(keras_cnv2.CheckpointError, match=match):
        load(path)


@contextlib.contextmanager
def cheap(megabytes=32, seconds=20):
    """Asserts that what happens in the context takes little memory and time."""
    tracemalloc.start()
    start = time.process_time()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < megabytes << 20
        assert time.process_time() - start < seconds
    finally:
        tracemalloc.stop()


# Where Keras puts the weights of the only layer of a model.
VARS = "layers/dense/vars"


def write_h5(path, arrays):
    """Writes a `.weights.h5` file as Keras does, of one layer "head" with `arrays`, whose names end in digits."""
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[f"{VARS}/{name[-1]}"] = array
        file[VARS].attrs["name"] = "head"
