"""PyTorch's files, zip and legacy, read without PyTorch and without trust.

A pickle is a program. This one may build tensors, containers, numbers, strings and `argparse.Namespace`, and what it
may build them with is made anew for each file, so that a file cannot change anything of this process either.
"""

import io
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from math import prod
from typing import NamedTuple

import ml_dtypes
import numpy as np

from keras_cnv2.checkpoints.errors import CheckpointError
from keras_cnv2.checkpoints.lazy import LazyArray

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
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
CHUNK = 1 << 20


class Storage(NamedTuple):
    """A run of numbers in the file, which tensors are views of."""

    key: str
    dtype: np.dtype
    count: int

    @property
    def bytes(self):
        return self.count * self.dtype.itemsize


def open_torch(path, stack):
    """Tensors in a file of `torch.save`: a state dict, alone or under "model" or "state_dict"."""
    file = stack.enter_context(path.open("rb"))
    contents = _open_zip(file, stack) if zipfile.is_zipfile(file) else _open_legacy(file)
    tensors = contents
    if isinstance(contents, Mapping):
        tensors = next((contents[key] for key in ("model", "state_dict") if key in contents), contents)
    if not isinstance(tensors, Mapping) or not all(isinstance(tensor, LazyArray) for tensor in tensors.values()):
        found = list(contents)[:5] if isinstance(contents, Mapping) else type(contents).__name__
        raise CheckpointError(f'the file holds no state dict, alone or under "model" or "state_dict". Received: {found}')
    return (dict(tensors),)


def _open_zip(file, stack):
    archive = stack.enter_context(zipfile.ZipFile(file))
    entries = {entry.filename: entry for entry in archive.infolist()}
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
        raise CheckpointError("PyTorch never compresses what it saves; this file is compressed and may be a zip bomb.")
    (pickled,) = (name for name in entries if name == "data.pkl" or name.endswith("/data.pkl"))
    folder = pickled.removesuffix("data.pkl")
    if entries.get(f"{folder}byteorder") and archive.read(f"{folder}byteorder") != b"little":
        raise CheckpointError("the file was written on a big-endian machine. Save it anew on another.")

    def check(storage):
        if entries[f"{folder}data/{storage.key}"].file_size != storage.bytes:
            raise ValueError(f"storage {storage.key} has not the size that it should have")

    def read(storage):
        with archive.open(f"{folder}data/{storage.key}") as source:  # compares the checksum at the end
            return _read_numbers(source, storage)

    return _unpickle(archive.read(pickled), check, read)


def _open_legacy(file):
    """The format before PyTorch 1.6: five pickles, then the storages one after the other."""
    file.seek(0)
    if _unpickle(_next_pickle(file)) != LEGACY_MAGIC or _unpickle(_next_pickle(file)) != 1001:
        raise ValueError("neither a zip archive nor PyTorch's legacy format")
    if not _unpickle(_next_pickle(file))["little_endian"]:
        raise CheckpointError("the file was written on a big-endian machine. Save it anew on another.")
    storages, offsets = {}, {}

    def check(storage):
        if storages.setdefault(storage.key, storage) != storage:
            raise ValueError(f"storage {storage.key} appears with two sizes")

    def read(storage):
        file.seek(offsets[storage.key])
        return _read_numbers(file, storage)

    contents = _unpickle(_next_pickle(file), check, read)
    for key in _unpickle(_next_pickle(file)):
        if int.from_bytes(file.read(8), "little") != storages[key].count:
            raise ValueError(f"storage {key} has not the size that it should have")
        offsets[key] = file.tell()
        file.seek(storages[key].bytes, io.SEEK_CUR)
    here = file.tell()
    if offsets.keys() != storages.keys() or here > file.seek(0, io.SEEK_END):
        raise ValueError("the file ends too early")
    return contents


def _read_numbers(source, storage):
    """Reads a storage in pieces, into the memory it will stay in."""
    numbers = np.empty(storage.count, storage.dtype)
    target = memoryview(numbers.view(np.uint8))
    while len(target):
        chunk = source.read(min(CHUNK, len(target)))
        if not chunk:
            raise EOFError("the file ends too early")
        target[: len(chunk)] = chunk
        target = target[len(chunk) :]
    return numbers


def _next_pickle(file):
    """The bytes of the pickle at the position of the file, which moves on behind it."""
    start = file.tell()
    for _ in pickletools.genops(file):
        pass
    length = file.tell() - start
    file.seek(start)
    return file.read(length)


def _unpickle(data, check=None, read=None):
    """Runs a pickle that may build nothing but what a checkpoint is made of.

    Args:
        data: Bytes, the pickle.
        check: Function of a `Storage`, raises an error if the file does not hold it.
        read: Function of a `Storage`, returns its numbers as an array of rank one.
    """
    for operation, argument, _ in pickletools.genops(data):
        # The unpickler would make its memo as long as the largest index in it.
        if operation.name in ("PUT", "LONG_BINPUT") and argument > len(data):
            raise ValueError(f"{operation.name} {argument} in a pickle of {len(data)} bytes")
    return _Unpickler(data, check, read).load()


class _Unpickler(pickle.Unpickler):
    def __init__(self, data, check, read):
        super().__init__(io.BytesIO(data))
        self._check = check

        def tensor(storage, offset, shape, strides, *_):
            return _view(storage, offset, tuple(shape), tuple(strides), read)

        def parameter(tensor, *_):
            return tensor

        self._allowed = {
            "collections.OrderedDict": OrderedDict,
            "argparse.Namespace": type("Namespace", (), {}),
            "torch.Size": lambda sizes: tuple(sizes),
            "torch._utils._rebuild_tensor_v2": tensor,
            "torch._utils._rebuild_parameter": parameter,
            **{f"torch.{name}": name for name in DTYPES},
        }

    def find_class(self, module, name):
        full = f"{module}.{name}"
        if full not in self._allowed:
            raise CheckpointError(
                f"the file asks for {full}, which no checkpoint needs and which may do harm; nothing of it was run. "
                "Only tensors, containers, numbers, strings and argparse.Namespace are read. If you trust the file, "
                "load it with PyTorch and save its state dict alone."
            )
        return self._allowed[full]

    def persistent_load(self, pid):
        kind, dtype, key, _, count = pid[:5]
        if kind != "storage" or any(pid[5:]):
            raise ValueError(f"unknown reference {pid!r}")
        storage = Storage(key, DTYPES[dtype], count)
        if not isinstance(key, str) or not _is_count(count):
            raise ValueError(f"impossible storage {storage!r}")
        self._check(storage)
        return storage


def _is_count(value):
    return type(value) is int and value >= 0


def _view(storage, offset, shape, strides, read):
    """A tensor: a view of a storage, which must lie inside of it."""
    reach = offset + sum((size - 1) * stride for size, stride in zip(shape, strides)) + 1
    fits = len(shape) == len(strides) and all(map(_is_count, (offset, *shape, *strides)))
    if not isinstance(storage, Storage) or not fits or (prod(shape) and reach > storage.count):
        raise ValueError(f"impossible tensor: {shape} of {storage!r}")

    def numbers():
        flat = read(storage)[offset:]
        step = storage.dtype.itemsize
        return np.lib.stride_tricks.as_strided(flat, shape, [stride * step for stride in strides], writeable=False)

    return LazyArray(shape, storage.dtype, numbers)
