"""Lists the arrays of an HDF5 file and their positions. Run as a program, in a process that may be killed.

A damaged file can make the HDF5 library loop forever or crash, and Python cannot interrupt a call of the library.
Therefore `read_hdf5` runs this program to find the arrays, and then reads their bytes itself. Apart from the standard
library it imports only h5py, so that it starts quickly.

    python hdf5_table.py START LENGTH SECONDS < FILE

prints the result of `answer` as JSON, for the HDF5 file of LENGTH bytes that begins at byte START of FILE. A signal
kills it when it has used more than SECONDS of CPU time, start-up not counted.
"""

import contextlib
import io
import json
import sys

import h5py

# More than any model has. The table must not fill the memory of the process that reads it.
MAX_MEMBERS, MAX_DEPTH, MAX_CHARACTERS = 100_000, 100, 50_000_000
# Memory limit of this process, in bytes.
MAX_MEMORY = 4 << 30


class Refused(Exception):
    """The file holds something that Keras never writes."""


class Part(io.RawIOBase):
    """A file object for `length` bytes of another file, from byte `start` on."""

    def __init__(self, file, start, length):
        self.file, self.start, self.length, self.position = file, start, length, 0

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=io.SEEK_SET):
        self.position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.length}[whence]
        return self.position

    def readinto(self, buffer):
        size = max(0, min(len(buffer), self.length - self.position))
        self.file.seek(self.start + self.position)
        read = self.file.readinto(memoryview(buffer)[:size])
        self.position += read
        return read


def table(file, start, length):
    """Lists the groups and arrays of an HDF5 file that is a part of another file.

    Every group and array is visited, the optimizer's too: a file without an error here is safe for Keras's own loader.

    Args:
        file: Open file, unbuffered.
        start: Int, the position of the part's first byte.
        length: Int, the part's size in bytes.

    Returns:
        Dict from paths in the HDF5 file. The value is a list for an array: shape, dtype and position of the first byte
        in the part. It is the name of a layer for the group `vars` of its variables, and `None` for any other group.

    Raises:
        Refused: If the file holds anything that Keras never writes.
        Exception: If the file is damaged; h5py raises many kinds.
    """
    with h5py.File(Part(file, start, length), "r") as root:
        if root.userblock_size:
            raise Refused("the file begins with other data, which Keras never writes.")
        return dict(_walk(root))


def answer(file, start, length):
    """Returns the result of `table`, or {"refused": reason}, or {"damaged": error}."""
    try:
        return table(file, start, length)
    except Refused as error:
        return {"refused": str(error)}
    except Exception as error:  # h5py raises many kinds for damaged files
        return {"damaged": f"{type(error).__name__}: {str(error)[:200]}"}


def _walk(root):
    seen, characters = {root}, 0
    waiting = [("", root)]
    while waiting:
        path, group = waiting.pop()
        for key in group:
            # Other links can refer to arrays in any file of this machine.
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise Refused("the file refers to weights elsewhere, which Keras never writes.")
            name, member = f"{path}/{key}", group[key]
            # Groups that contain each other would give endlessly many paths.
            if member in seen:
                raise Refused("the file holds a group or an array twice, which Keras never writes.")
            seen.add(member)
            characters += len(name)
            if len(seen) > MAX_MEMBERS or name.count("/") > MAX_DEPTH or characters > MAX_CHARACTERS:
                raise Refused("the file holds more groups or deeper ones than any model has.")
            if isinstance(member, h5py.Group):
                yield name, _label(member) if key == "vars" else None
                waiting.append((name, member))
            else:
                yield name, _place(member)


def _label(group):
    """The name of the layer whose variables are in a group."""
    label = group.attrs.get("name")
    if not (label is None or isinstance(label, str)):
        raise TypeError(f"the name of a layer is no text: {str(label)[:80]}")
    return label


def _place(dataset):
    stored = dataset.size * dataset.dtype.itemsize == dataset.id.get_storage_size()
    if dataset.external or dataset.is_virtual or dataset.chunks or not stored:
        raise Refused("the file holds arrays that are elsewhere, compressed or cut, which Keras never writes.")
    # HDF5 has no bfloat16: Keras stores the raw bytes and notes the dtype in an attribute.
    dtype = "bfloat16" if dataset.attrs.get("dtype") == "bfloat16" else dataset.dtype.str
    return [list(dataset.shape), dtype, dataset.id.get_offset() if dataset.size else 0]


def limit(seconds):
    """Limits CPU time and memory of this process, also for the case that its parent has ended. Not on Windows."""
    try:
        import resource
        import signal
    except ImportError:
        return
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, seconds)  # CPU time: the machine may be busy, the file on a slow network
    with contextlib.suppress(ValueError, OSError):  # a lower limit is set already, or the system has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))


def main(start, length, seconds):
    limit(seconds)
    with open(0, "rb", buffering=0, closefd=False) as file:
        json.dump(answer(file, start, length), sys.stdout)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
