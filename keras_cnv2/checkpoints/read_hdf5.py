"""Reads HDF5 files without using the HDF5 library in this process."""

import json
import multiprocessing.spawn
import os
import signal
import subprocess
import sys

import ml_dtypes
import numpy as np

from keras_cnv2.checkpoints import hdf5_table
from keras_cnv2.checkpoints.lazy_array import LazyArray, damage
from keras_cnv2.errors import CheckpointError

# Limit of CPU time for reading a file's structure, in seconds. The largest model's takes half a second.
SECONDS = 5
# Limit of elapsed time in seconds, including the start of Python, for a busy machine or a file on a slow network.
PATIENCE = 60
# Exit codes of Python itself: an import failed, or it does not know an option.
PYTHON_FAILED = (1, 2)


def open_hdf5(file, start, length):
    """Opens an HDF5 file that is a part of another file.

    A separate process reads the structure, since damaged files can make the HDF5 library loop forever or crash. This
    costs about 0.4 s to start Python with h5py. The numbers are read in this process, directly from the file.

    Args:
        file: Open file, unbuffered, since both processes read it.
        start: Int, the position of the part's first byte.
        length: Int, the part's size in bytes.

    Returns:
        Dict from paths in the HDF5 file. The value is a `LazyArray` for an array, and for a group the name of a layer
        or `None`, see `hdf5_table.table`.

    Raises:
        CheckpointError: If the file is damaged, or holds anything that Keras never writes.
    """
    found = answer_in_process(file, start, length)
    if "refused" in found:
        raise CheckpointError(found["refused"])
    if "damaged" in found:
        raise damage(found["damaged"])
    return {
        path: _lazy(file, start, length, *entry) if isinstance(entry, list) else entry for path, entry in found.items()
    }


def answer_in_process(file, start, length):
    """Returns the result of `hdf5_table.answer`, called in another process."""
    python = os.fsdecode(multiprocessing.spawn.get_executable() or "")
    command = [python, "-P", hdf5_table.__file__, *map(str, (start, length, SECONDS))]
    # The process gets the import path of this one, and no extra threads: their memory counts towards its limit.
    path = os.pathsep.join(filter(None, sys.path))
    env = {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    try:
        looked = subprocess.run(command, stdin=file, capture_output=True, timeout=PATIENCE, env=env)
    except subprocess.TimeoutExpired as error:
        raise damage(f"HDF5 did not finish within {PATIENCE} seconds") from error
    except OSError as error:
        raise _not_started(python, error) from error
    if looked.returncode == 0:
        return json.loads(looked.stdout)
    if looked.returncode == -getattr(signal, "SIGPROF", 0):
        raise damage(f"HDF5 did not finish within {SECONDS} seconds")
    if looked.returncode not in PYTHON_FAILED:
        raise damage(f"HDF5 crashed, exit code {looked.returncode}")
    raise _not_started(python, looked.stderr.decode(errors="replace").strip().rpartition("\n")[2])


def _not_started(python, reason):
    return CheckpointError(
        "Keras files are read with the help of a separate Python process, which could not be started. In an embedded "
        f"Python, call multiprocessing.set_executable. Received: {python!r}: {str(reason)[:200]}"
    )


def _lazy(file, start, length, shape, dtype, offset):
    dtype = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if dtype.hasobject or not 0 <= offset <= offset + size <= length:
        raise ValueError(f"no array of numbers: {dtype}, {size} bytes at {offset} of {length}")

    def read():
        file.seek(start + offset)
        content = np.fromfile(file, "uint8", size)
        if len(content) != size:
            raise EOFError(f"the file ends within an array of {size} bytes")
        return content.view(dtype).reshape(shape)

    return LazyArray(shape, dtype, read)
