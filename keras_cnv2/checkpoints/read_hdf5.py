"""HDF5 files, without letting HDF5 touch them in this process."""

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

# Seconds of computing for the look at a file's structure; that of the largest model takes half a one.
SECONDS = 5
# Seconds on the clock, with the start of Python, on a machine that is busy or a file that is far away.
PATIENCE = 60
# Exit codes of Python itself: without the package, or with options that it does not know.
PYTHON_FAILED = (1, 2)


def open_hdf5(file, start, length):
    """What the HDF5 file in a part of a file holds.

    A process of its own looks at the structure: damaged files make HDF5 compute for ever, or crash. It costs the start
    of Python with h5py, some 0.4 s, and does not read the numbers. Those are read here, straight from the file.

    Args:
        file: Open file, unbuffered: it is read from here and from there.
        start: Int, where the part begins.
        length: Int, its bytes.

    Returns:
        Dict from paths to a `LazyArray`, or, for groups, to the name of a layer or `None`.

    Raises:
        CheckpointError: If the file is damaged, or holds anything that Keras never writes.
    """
    found = _look(file, start, length)
    if "refused" in found:
        raise CheckpointError(found["refused"])
    if "damaged" in found:
        raise damage(found["damaged"])
    return {
        path: _lazy(file, start, length, *entry) if isinstance(entry, list) else entry for path, entry in found.items()
    }


def _look(file, start, length):
    """`hdf5_table.answer` from another process."""
    python = os.fsdecode(multiprocessing.spawn.get_executable() or "")
    command = [python, "-P", hdf5_table.__file__, *map(str, (start, length, SECONDS))]
    # The process has what this one imports from, and no threads: their memory counts against its limit.
    path = os.pathsep.join(filter(None, sys.path))
    env = {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    try:
        looked = subprocess.run(command, stdin=file, capture_output=True, timeout=PATIENCE, env=env)
    except subprocess.TimeoutExpired as error:
        raise damage(f"no end of it within {PATIENCE} seconds") from error
    except OSError as error:
        raise _not_started(python, error) from error
    if looked.returncode == 0:
        return json.loads(looked.stdout)
    if looked.returncode == -getattr(signal, "SIGPROF", 0):
        raise damage(f"no end of it within {SECONDS} seconds")
    if looked.returncode not in PYTHON_FAILED:
        raise damage(f"HDF5 crashes, exit code {looked.returncode}")
    raise _not_started(python, looked.stderr.decode(errors="replace").strip().rpartition("\n")[2])


def _not_started(python, reason):
    return CheckpointError(
        "Keras's files are looked into by a process of their own, and none could be started. In an embedded Python, "
        f"call multiprocessing.set_executable. Received: {python!r}: {str(reason)[:200]}"
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
