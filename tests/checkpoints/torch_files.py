"""PyTorch's files made by hand, from the instructions of pickles."""

import math
import pickle
import struct
import zipfile

import numpy as np

from keras_cnv2.checkpoints import read_torch

NUMBERS = np.arange(24, dtype="float32")

# The parts of a pickle, in its own instructions.


def plain(value):
    """Containers, numbers and strings."""
    return pickle.dumps(value, 2)[2:-1]


def named(name):
    """A class or a function, "module.name"."""
    return "c{}\n{}\n".format(*name.rsplit(".", 1)).encode()


def tuple_of(*parts):
    return b"(" + b"".join(parts) + b"t"


def dict_of(items):
    return b"}(" + b"".join(plain(key) + value for key, value in items.items()) + b"u"


def call(name, *arguments):
    return named(name) + tuple_of(*arguments) + b"R"


def build(instance, state):
    """An object, changed by `state`: a dict of attributes, or a pair of such dicts."""
    return instance + state + b"b"


def storage(key="0", count=24, kind="FloatStorage"):
    return tuple_of(plain("storage"), named(f"torch.{kind}"), plain(key), plain("cpu"), plain(count)) + b"Q"


def tensor(shape=(24,), strides=None, offset=0, stored=None):
    """A tensor; by default contiguous, in the storage "0" of 24 numbers."""
    if strides is None:
        strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    hooks = call("collections.OrderedDict")
    parts = stored or storage(), plain(offset), plain(shape), plain(strides), plain(False), hooks
    return call("torch._utils._rebuild_tensor_v2", *parts)


# The two kinds of files.


def write_zip(path, contents, storages=None, byteorder=b"little", compression=zipfile.ZIP_STORED):
    """Writes a zip file from instructions and storages, `NUMBERS` by default."""
    storages = {"0": NUMBERS} if storages is None else storages
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("model/data.pkl", b"\x80\x02" + contents + b".")
        archive.writestr("model/byteorder", byteorder)
        for key, numbers in storages.items():
            archive.writestr(f"model/data/{key}", numbers.tobytes())
    return path


def write_legacy(path, contents, storages=None, little_endian=True):
    """Writes a legacy file from instructions and storages, `NUMBERS` by default."""
    storages = {"0": NUMBERS} if storages is None else storages
    system = {"protocol_version": 1001, "little_endian": little_endian}
    start = b"".join(pickle.dumps(value, 2) for value in (read_torch.LEGACY_MAGIC, 1001, system))
    numbers = b"".join(struct.pack("<Q", array.size) + array.tobytes() for array in storages.values())
    path.write_bytes(start + b"\x80\x02" + contents + b"." + pickle.dumps([*storages], 2) + numbers)
    return path
