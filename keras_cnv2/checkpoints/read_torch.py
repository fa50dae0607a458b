"""Reads untrusted files of PyTorch, zip and legacy, without PyTorch."""

import io
import logging
import zipfile
from math import prod
from typing import NamedTuple

import ml_dtypes
import numpy as np

from keras_cnv2.checkpoints.lazy_array import LazyArray
from keras_cnv2.checkpoints.read_pickle import LIMIT, run_pickle
from keras_cnv2.checkpoints.read_zip import open_zip
from keras_cnv2.errors import CheckpointError

logger = logging.getLogger(__name__)

DTYPES = {
    "DoubleStorage": np.dtype("float64"),
    "FloatStorage": np.dtype("float32"),
    "HalfStorage": np.dtype("float16"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("int64"),
    "IntStorage": np.dtype("int32"),
    "ShortStorage": np.dtype("int16"),
    "CharStorage": np.dtype("int8"),
    "ByteStorage": np.dtype("uint8"),
    "BoolStorage": np.dtype("bool"),
}
# The keys of state dicts in checkpoints of trainings, in the order in which they are taken: first moving averages.
AVERAGES = ("state_dict_ema", "model_ema")
KEYS = (*AVERAGES, "model", "state_dict", "model_state_dict")
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
CHUNK = 1 << 20
MAX_RANK = 32  # the limit of NumPy 1


class Storage(NamedTuple):
    """A contiguous array of numbers in the file. Tensors are views of it."""

    key: str
    dtype: np.dtype
    count: int

    @property
    def bytes(self):
        return self.count * self.dtype.itemsize


def open_torch(path, stack, key=None):
    """Returns the tensors of a file of `torch.save`: a state dict, alone or under one of the `KEYS`.

    Args:
        path: Path of the file.
        stack: `contextlib.ExitStack` that closes the file.
        key: Optional string, the key of the state dict that is meant.
    """
    file = stack.enter_context(path.open("rb"))
    contents = _open_zip(file, stack) if zipfile.is_zipfile(file) else _open_legacy(file)
    held = [*filter(contents.get, KEYS)] if isinstance(contents, dict) else []
    if key is None and len(held) > 1 and held[0] in AVERAGES:
        logger.warning(
            "%s holds weights and their moving average: the average, %r, is taken; %s#%s selects the others",
            *(path.name, held[0], path.name, held[-1]),
        )
    taken = key or next(iter(held), None)
    tensors = contents if taken is None else contents.get(taken) if isinstance(contents, dict) else None
    if not _is_state_dict(tensors):
        found = str([*contents][:20])[:200] if isinstance(contents, dict) else type(contents).__name__
        where = f"under {key!r}" if key else f"alone or under one of {', '.join(KEYS)}"
        raise CheckpointError(f"the file holds no state dict, {where}. Received: {found}")
    return (tensors,)


def _is_state_dict(value):
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(tensor, LazyArray) for name, tensor in value.items()
    )


def _open_zip(file, stack):
    archive = open_zip(file, stack)
    sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    (pickled,) = (name for name in sizes if name == "data.pkl" or name.endswith("/data.pkl"))
    folder = pickled.removesuffix("data.pkl")
    if f"{folder}byteorder" in sizes and archive.read(f"{folder}byteorder") != b"little":
        raise CheckpointError("the file was written on a big-endian machine. Save it again on a little-endian one.")
    if sizes[pickled] > LIMIT:
        raise CheckpointError(f"the pickle in the file has {sizes[pickled]} bytes, more than any checkpoint needs.")

    def check(storage):
        if sizes[f"{folder}data/{storage.key}"] != storage.bytes:
            raise ValueError(f"storage {storage.key} does not have the expected size")

    def read(storage):
        with archive.open(f"{folder}data/{storage.key}") as source:  # `zipfile` compares the checksum at the end
            return _read_numbers(source, storage)

    return _unpickle(io.BytesIO(archive.read(pickled)), check, read)


def _open_legacy(file):
    """Reads the format before PyTorch 1.6: five pickles, then the storages one after the other."""
    file.seek(0)
    pickles = io.BytesIO(file.read(LIMIT))
    if run_pickle(pickles) != LEGACY_MAGIC or run_pickle(pickles) != 1001:
        raise ValueError("neither a zip archive nor PyTorch's legacy format")
    if not run_pickle(pickles)["little_endian"]:
        raise CheckpointError("the file was written on a big-endian machine. Save it again on a little-endian one.")
    storages, offsets = {}, {}

    def check(storage):
        if storages.setdefault(storage.key, storage) != storage:
            raise ValueError(f"storage {storage.key} appears with two sizes")

    def read(storage):
        file.seek(offsets[storage.key])
        return _read_numbers(file, storage)

    contents = _unpickle(pickles, check, read)
    keys = run_pickle(pickles)
    if not all(isinstance(key, str) for key in keys) or {*keys} != storages.keys():
        raise ValueError("the storages in the file are not those of its tensors")
    file.seek(pickles.tell())
    for key in keys:
        if int.from_bytes(file.read(8), "little") != storages[key].count:
            raise ValueError(f"storage {key} does not have the expected size")
        offsets[key] = file.tell()
        file.seek(storages[key].bytes, io.SEEK_CUR)
    if file.tell() > file.seek(0, io.SEEK_END):
        raise EOFError("the file ends too early")
    return contents


def _read_numbers(source, storage):
    """Reads a storage in chunks, directly into the array that is returned."""
    numbers = np.empty(storage.count, storage.dtype)
    target = memoryview(numbers.view(np.uint8))
    while len(target):
        chunk = source.read(min(CHUNK, len(target)))
        if not chunk:
            raise EOFError("the file ends too early")
        target[: len(chunk)] = chunk
        target = target[len(chunk) :]
    return numbers


def _unpickle(file, check, read):
    """Runs a pickle of tensors.

    Args:
        file: Binary file.
        check: Function that takes a `Storage`, and raises an error if the file does not hold it.
        read: Function that takes a `Storage`, and returns its numbers as an array of rank one.
    """

    def load(reference):
        if not isinstance(reference, tuple) or len(reference) not in (5, 6):
            raise ValueError("unknown reference")
        kind, dtype, key, _, count = reference[:5]
        if kind != "storage" or reference[5:] not in ((), (None,)):
            raise ValueError("unknown reference")
        if not isinstance(dtype, np.dtype) or not isinstance(key, str) or not _is_count(count):
            raise ValueError("impossible storage")
        storage = Storage(key, dtype, count)
        check(storage)
        return storage

    # The signatures are fixed, those of PyTorch, and nothing is copied: a short pickle can call these very often.
    def tensor(storage, offset, shape, strides, requires_grad, hooks, metadata=None):
        return _view(storage, offset, shape, strides, read)

    def parameter(tensor, requires_grad, hooks):
        return tensor

    names = {
        "collections.OrderedDict": lambda: {},
        "argparse.Namespace": lambda: {},
        "__builtin__.set": lambda members: members,  # the name in the pickle protocol that PyTorch writes
        "torch.Size": lambda sizes: sizes,
        "torch._utils._rebuild_tensor_v2": tensor,
        "torch._utils._rebuild_parameter": parameter,
        **{f"torch.{name}": dtype for name, dtype in DTYPES.items()},
    }
    return run_pickle(file, names, load)


def _is_count(value):
    return type(value) is int and 0 <= value < 1 << 63


def _view(storage, offset, shape, strides, read):
    """Returns a tensor as a `LazyArray`. It is a view of a storage, and must lie inside of it."""
    if not isinstance(storage, Storage) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise ValueError("impossible tensor")
    if len(shape) != len(strides) or len(shape) > MAX_RANK or not all(map(_is_count, (offset, *shape, *strides))):
        raise ValueError("impossible tensor")
    reach = offset + sum((size - 1) * stride for size, stride in zip(shape, strides)) + 1
    if prod(shape) and reach > storage.count:
        raise ValueError(f"impossible tensor: {shape} of {storage}")

    def numbers():
        flat = read(storage)
        strides_in_bytes = [stride * storage.dtype.itemsize for stride in strides]
        view = np.lib.stride_tricks.as_strided(flat[offset:], shape, strides_in_bytes, writeable=False)
        return view if view.size >= flat.size else view.copy()  # a view would keep the whole storage in memory

    return LazyArray(shape, storage.dtype, numbers)
