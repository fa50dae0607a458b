"""What an HDF5 file holds, and where: run as a program, in a process that may be killed.

HDF5 follows what a file says, and damaged files send it round in circles or make it crash; nothing in Python can end a
call of it. Who reads weights therefore lets this program look, and then reads the bytes of the arrays by itself.
It imports h5py alone, so that it starts quickly.

    python hdf5_table.py START LENGTH SECONDS < FILE

prints `answer` for the HDF5 file that lies in FILE from byte START on, as JSON. It is killed by a signal if it takes
more than SECONDS of computing, its start not counted.
"""

import contextlib
import io
import json
import sys

import h5py

# More than any model has. The table must not fill the memory of whoever reads it.
MAX_MEMBERS, MAX_DEPTH, MAX_CHARACTERS = 100_000, 100, 50_000_000
# Bytes that this process may have.
MAX_MEMORY = 4 << 30


class Refused(Exception):
    """The file holds what Keras never writes."""


class Part(io.RawIOBase):
    """Bytes of a file from `start` on, as a file."""

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
    """The arrays of the HDF5 file in a part of a file, and the names of layers.

    Every group and array is visited, the optimizer's too: what has passed can be given to Keras's own loader.

    Args:
        file: Open file, unbuffered.
        start: Int, where the part begins.
        length: Int, its bytes.

    Returns:
        Dict from paths in the HDF5 file to the name of a layer, where the path is that of a group of its variables, or
        to `None`, where it is any other group, or to a list for an array: shape, dtype and first byte in the part.

    Raises:
        Refused: If there is anything that Keras never writes.
        Exception: Of any kind that h5py has for damaged files.
    """
    with h5py.File(Part(file, start, length), "r") as root:
        if root.userblock_size:
            raise Refused("the file begins with other data, which Keras never writes.")
        return dict(_walk(root))


def answer(file, start, length):
    """`table`, or {"refused": why} or {"damaged": error}."""
    try:
        return table(file, start, length)
    except Refused as error:
        return {"refused": str(error)}
    except Exception as error:  # of the many that h5py has for damaged files
        return {"damaged": f"{type(error).__name__}: {str(error)[:200]}"}


def _walk(root):
    seen, characters = {root}, 0
    waiting = [("", root)]
    while waiting:
        path, group = waiting.pop()
        for key in group:
            # HDF5 can refer to arrays in any file of this machine.
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise Refused("the file refers to weights elsewhere, which Keras never writes.")
            name, member = f"{path}/{key}", group[key]
            # Few groups can hold each other along endlessly many paths.
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
    """The name of the layer whose variables a group holds."""
    label = group.attrs.get("name")
    if not (label is None or isinstance(label, str)):
        raise TypeError(f"the name of a layer is no text: {str(label)[:80]}")
    return label


def _place(dataset):
    stored = dataset.size * dataset.dtype.itemsize == dataset.id.get_storage_size()
    if dataset.external or dataset.is_virtual or dataset.chunks or not stored:
        raise Refused("the file holds arrays that are elsewhere, compressed or cut, which Keras never writes.")
    # HDF5 has no bfloat16: Keras stores the bytes and says so in an attribute.
    dtype = "bfloat16" if dataset.attrs.get("dtype") == "bfloat16" else dataset.dtype.str
    return [list(dataset.shape), dtype, dataset.id.get_offset() if dataset.size else 0]


def _limit(seconds):
    """Lets the system end this process, even if nobody is left who waits for it. Windows has neither limit."""
    try:
        import resource
        import signal
    except ImportError:
        return
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, seconds)  # computing: the machine may be busy, the file far away
    with contextlib.suppress(ValueError, OSError):  # there is a lower limit already, or none on this system
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))


def main(start, length, seconds):
    _limit(seconds)
    with open(0, "rb", buffering=0, closefd=False) as file:
        json.dump(answer(file, start, length), sys.stdout)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
