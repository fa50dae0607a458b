"""Reads `.safetensors` files."""

import json
import zlib

import ml_dtypes
import numpy as np

from keras_cnv2.checkpoints.described import CHECKSUM, CHECKSUMS, DESCRIPTION, described
from keras_cnv2.checkpoints.lazy_array import LazyArray
from keras_cnv2.checkpoints.metadata import KEY, check_metadata

DTYPES = {
    "F64": np.dtype("float64"),
    "F32": np.dtype("float32"),
    "F16": np.dtype("float16"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}


def open_safetensors(path, stack):
    """Returns tensors and metadata of a `.safetensors` file, and the configuration of its Keras model if it has one.

    If the file has checksums, they are compared: that of the metadata at once, that of a tensor when it is read.
    """
    from safetensors import safe_open

    def lazy(name, part):
        # The library memory-maps the file. The file is opened again for each tensor, so that only the pages of this
        # tensor count as this process's memory.
        def read():
            with safe_open(path, "np") as file:
                array = file.get_tensor(name)
            if name in checksums and zlib.crc32(array.tobytes()) != checksums[name]:
                raise ValueError(f"{name} has changed since it was written")
            return array

        dtype = part.get_dtype()
        return LazyArray(part.get_shape(), DTYPES.get(dtype, dtype), read)

    with safe_open(path, "np") as file:
        metadata = file.metadata() or {}
        tensors = {name: lazy(name, file.get_slice(name)) for name in file.keys()}  # noqa: SIM118
    text = metadata.get(KEY)
    if text and metadata.get(CHECKSUM) not in (None, str(zlib.crc32(text.encode()))):
        raise ValueError("its metadata have changed since they were written")
    content = json.loads(text) if text else {}
    is_described = isinstance(content, dict) and DESCRIPTION in content
    checksums = content.get(CHECKSUMS) if is_described else None
    checksums = checksums if isinstance(checksums, dict) else {}
    return described(tensors, content[DESCRIPTION]) if is_described else (tensors, check_metadata(content))
