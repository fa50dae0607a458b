"""`.safetensors` files."""

import json

import ml_dtypes
import numpy as np

from keras_cnv2.checkpoints.described import DESCRIPTION, described
from keras_cnv2.checkpoints.lazy_array import LazyArray
from keras_cnv2.checkpoints.metadata import KEY, check_metadata

DTYPES = {
    "F64": np.dtype("float64"),
    "F32": np.dtype("float32"),
    "F16": np.dtype("float16"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}


def open_safetensors(path, stack):
    """Tensors and metadata in a `.safetensors` file, and the configuration of the Keras model where it has one."""
    from safetensors import safe_open

    def lazy(name, part):
        # The library maps the file into memory. Opened anew, only the pages of this tensor ever count as ours.
        def read():
            with safe_open(path, "np") as file:
                return file.get_tensor(name)

        dtype = part.get_dtype()
        return LazyArray(part.get_shape(), DTYPES.get(dtype, dtype), read)

    with safe_open(path, "np") as file:
        text = (file.metadata() or {}).get(KEY)
        tensors = {name: lazy(name, file.get_slice(name)) for name in file.keys()}  # noqa: SIM118
    content = json.loads(text) if text else {}
    if isinstance(content, dict) and DESCRIPTION in content:
        return described(tensors, content[DESCRIPTION])
    return tensors, check_metadata(content)
