"""Files and folders that appear whole or not at all."""

import contextlib
import ctypes
import errno
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# How names of folders begin in which things are written; one that is left is of a process that was killed.
WRITING = ".writing-"

# No place for what is written: the system's error, which names no file.
FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))

# Of renameat2 in Linux, and of renamex_np in macOS, which call it RENAME_EXCHANGE and RENAME_SWAP; and the current
# folder of the process for the first.
EXCHANGE, HERE = 2, -100


def read_file(path):
    """The bytes of a file. Raises an `OSError` for what is none: reading pipes and devices may never end."""
    # A pipe that nobody writes to would even be waited for here, but for this flag.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"This is no regular file but a folder, a pipe or the like. Received: {os.fspath(path)}")
    with open(descriptor, "rb") as file:
        return file.read()


def check_target(path):
    """Raises an `OSError` if there cannot be a file at `path`."""
    _check_folder(path)
    if path.is_dir():
        raise IsADirectoryError(f"There is a folder where the file should be. Received: {path}")


def _check_folder(path):
    """Raises an `OSError` if nothing can be written beside `path`."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no such folder to write to. Received: {path}")
    try:  # permissions do not tell: of a disk that is mounted to be read only, of network disks
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise type(error)(f"Nothing can be written to this folder ({error.strerror}). Received: {path}") from error


@contextlib.contextmanager
def replacing(path):
    """Gives the path of a temporary file beside `path` to write to, which then takes its place, or goes on an error.

    Raises:
        OSError: If there cannot be a file at `path`, or another process is writing it.
    """
    check_target(path)
    with _writing(path) as folder:
        # In a folder of its own: the name, whose ending may matter, stays the same.
        temporary = folder / "new" / path.name
        temporary.parent.mkdir()
        yield temporary
        os.replace(temporary, path)


@contextlib.contextmanager
def new_folder(path, overwrite=False):
    """Gives the path of a temporary folder beside `path`, which then takes its place, or goes on an error.

    Whenever the process is killed, there is the old folder or the new one at `path`; the next call removes what it has
    left. Only systems that cannot exchange two folders (Linux and macOS can, on most file systems) may leave none: the
    next call puts the new one there.

    Args:
        path: Of the folder to be.
        overwrite: Whether a SavedModel or an empty folder that is there gives way. It does when the new one is whole.

    Raises:
        OSError: If there is something at `path` that may not be replaced, no folder to put it into, or another process
            is writing it.
    """
    path = Path(path)
    _check_folder(path)
    with _writing(path) as folder:
        _check_free(path, overwrite)
        temporary = folder / "new"
        temporary.mkdir()
        yield temporary
        _check_free(path, overwrite)  # what takes long may have been overtaken
        if not path.exists():
            os.rename(temporary, path)
        elif not exchange(temporary, path):
            _replace(path, temporary, folder / "old")


def _check_free(path, overwrite):
    if path.exists() and not (overwrite and _may_go(path)):
        raise FileExistsError(f"There is something already; give another path or delete it. Received: {path}")


def _may_go(path):
    """Whether what `path` names can be made again: not a folder of other things that was named by mistake."""
    return path.is_dir() and ((path / "saved_model.pb").is_file() or not any(path.iterdir()))


def exchange(one, two):
    """Exchanges what two paths name, in one step. Returns whether system and file system could do it."""
    one, two = os.fsencode(one), os.fsencode(two)
    with contextlib.suppress(AttributeError):  # C libraries without it
        if sys.platform == "linux":
            return ctypes.CDLL(None).renameat2(HERE, one, HERE, two, EXCHANGE) == 0
        if sys.platform == "darwin":
            return ctypes.CDLL(None).renamex_np(one, two, EXCHANGE) == 0
    return False


def _replace(path, new, old):
    """Puts a folder in the place of another, in two steps."""
    os.replace(path, old)
    try:
        os.replace(new, path)
    except BaseException:
        os.replace(old, path)
        raise


@contextlib.contextmanager
def _writing(path):
    """Gives an empty folder beside `path`, which only this process has, for what is to be there; it is removed at last.

    Its name does not begin with a digit: TensorFlow Serving takes such folders for versions.
    """
    folder = path.parent / f"{WRITING}{path.name[:60]}"  # of at most 255 bytes
    lock = _locked(folder, path)
    try:
        if (folder / "old").exists() and not path.exists():  # of a process that was killed between two renames
            os.replace(folder / "new", path)
        _empty(folder)
        yield folder
    except OSError as error:
        if error.errno in FULL and error.filename is None:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise
    finally:
        _empty(folder)
        if fcntl is None:  # Windows removes no open files
            os.close(lock)
        with contextlib.suppress(OSError):
            (folder / "lock").unlink()
            folder.rmdir()
        if fcntl:
            os.close(lock)


def _empty(folder):
    """Removes all but the lock."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != "lock":
            path.unlink(missing_ok=True)


def _locked(folder, path):
    """Makes the folder and locks it for this process. Returns the descriptor of the file that holds the lock.

    Raises:
        OSError: If another process has it.
    """
    while True:
        folder.mkdir(exist_ok=True)
        try:
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
        except FileNotFoundError:  # whoever had it has just removed it
            continue
        if not _lock(lock):
            os.close(lock)
            raise FileExistsError(
                f"Another process is writing this; wait for it, or give another path. Received: {path}"
            )
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), os.stat(folder / "lock")):
                return lock
        os.close(lock)


def _lock(file):
    """Whether nobody else has locked the open file; it is locked then, where the file system knows locks."""
    try:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    except OSError as error:
        return not isinstance(error, (BlockingIOError, PermissionError))
    return True
