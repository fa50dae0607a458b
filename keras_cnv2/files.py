"""Files and folders that are written completely or not at all."""

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

# Prefix of temporary folders. A leftover one means that the process was killed.
WRITING = ".writing-"

# No space left, file too large, quota exceeded. The system's errors for these do not name the file.
FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))

# The flag that makes renameat2 (Linux, RENAME_EXCHANGE) and renamex_np (macOS, RENAME_SWAP) exchange two paths, and
# AT_FDCWD for renameat2: relative paths start from the current folder.
EXCHANGE, HERE = 2, -100


def read_file(path):
    """Returns the bytes of a regular file. Raises an `OSError` for pipes and devices: reading them may never end."""
    # Without O_NONBLOCK, opening a pipe would wait until another process writes to it.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"This is no regular file but a folder, a pipe or the like. Received: {os.fspath(path)}")
    with open(descriptor, "rb") as file:
        return file.read()


def check_target(path):
    """Raises an `OSError` if no file can be written at `path`."""
    _check_folder(path)
    if path.is_dir():
        raise IsADirectoryError(f"There is a folder where the file should be. Received: {path}")


def _check_folder(path):
    """Raises an `OSError` if nothing can be written to the folder of `path`."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no such folder to write to. Received: {path}")
    try:  # permission bits are not enough: the disk may be mounted read-only, or be a network disk
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        kind = OSError if error.errno in FULL else PermissionError
        raise kind(f"Nothing can be written to this folder ({error.strerror}). Received: {path}") from error


@contextlib.contextmanager
def replacing(path):
    """Yields the path of a temporary file near `path`. After the block it replaces `path`; on an error it is removed.

    Raises:
        OSError: If no file can be written at `path`, or another process is writing it.
    """
    check_target(path)
    with _writing(path) as folder:
        # The file has a folder of its own, so it can keep its name: the suffix may matter to the writer.
        temporary = folder / "new" / path.name
        temporary.parent.mkdir()
        yield temporary
        os.replace(temporary, path)


@contextlib.contextmanager
def new_folder(path, overwrite=False, replaceable=None):
    """Yields the path of a temporary folder near `path`. After the block it replaces `path`; on an error it is removed.

    If the process is killed at any time, `path` is the old folder or the new one, and the next call removes the
    leftovers. Only on systems that cannot exchange two folders (Linux and macOS can, on most file systems) may `path`
    be missing: the next call then moves the new folder there.

    Args:
        path: Path of the folder to write.
        overwrite: Whether to replace an existing folder that is `replaceable` or empty. It stays until the new folder
            is complete.
        replaceable: Function that says of the path of a folder whether it may be replaced. By default those that hold a
            SavedModel.

    Raises:
        OSError: If something at `path` must not be replaced, if the parent folder does not exist or cannot be written,
            or if another process is writing `path`.
    """
    path = Path(path)
    replaceable = replaceable or _is_saved_model
    _check_folder(path)
    with _writing(path) as folder:
        _check_free(path, overwrite, replaceable)
        temporary = folder / "new"
        temporary.mkdir()
        yield temporary
        _check_free(path, overwrite, replaceable)  # again: another process may have written `path` in the meantime
        if not path.exists():
            os.rename(temporary, path)
        elif not exchange(temporary, path):
            _replace(path, temporary, folder / "old")


def _check_free(path, overwrite, replaceable):
    if path.exists() and not (overwrite and _may_go(path, replaceable)):
        raise FileExistsError(f"There is something already; give another path or delete it. Received: {path}")


def _may_go(path, replaceable):
    """Whether `path` may be overwritten: a folder of the kind that is written, not any folder given by mistake."""
    return path.is_dir() and (not any(path.iterdir()) or replaceable(path))


def _is_saved_model(folder):
    return (folder / "saved_model.pb").is_file()


def exchange(one, two):
    """Exchanges two files or folders in one step. Returns false if the system or the file system cannot do it."""
    one, two = os.fsencode(one), os.fsencode(two)
    with contextlib.suppress(AttributeError):  # C libraries that lack the function
        if sys.platform == "linux":
            return ctypes.CDLL(None).renameat2(HERE, one, HERE, two, EXCHANGE) == 0
        if sys.platform == "darwin":
            return ctypes.CDLL(None).renamex_np(one, two, EXCHANGE) == 0
    return False


def _replace(path, new, old):
    """Replaces the folder `path` by `new` in two steps; the old one is moved to `old`."""
    os.replace(path, old)
    try:
        os.replace(new, path)
    except BaseException:
        os.replace(old, path)
        raise


@contextlib.contextmanager
def _writing(path):
    """Yields an empty temporary folder next to `path`, locked for this process. It is removed at the end.

    Its name does not begin with a digit: TensorFlow Serving would take it for a version of a model.
    """
    folder = path.parent / f"{WRITING}{path.name[:60]}"  # file names have at most 255 bytes
    lock = _locked(folder, path)
    try:
        if (folder / "old").exists() and not path.exists():  # a process was killed between the two steps of `_replace`
            os.replace(folder / "new", path)
        _empty(folder)
        yield folder
    except OSError as error:
        if error.errno in FULL and error.filename is None:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise
    finally:
        _empty(folder)
        if fcntl is None:  # Windows cannot remove open files
            os.close(lock)
        with contextlib.suppress(OSError):
            (folder / "lock").unlink()
            folder.rmdir()
        if fcntl:
            os.close(lock)


def _empty(folder):
    """Removes everything in the folder except the lock file."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != "lock":
            path.unlink(missing_ok=True)


def _locked(folder, path):
    """Creates the folder and locks it for this process. Returns the descriptor of the lock file.

    Raises:
        OSError: If another process holds the lock.
    """
    while True:
        folder.mkdir(exist_ok=True)
        try:
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
        except FileNotFoundError:  # the process that held the lock has just removed the folder
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
    """Locks an open file. Returns false if another process has locked it, true also where locks are not supported."""
    try:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    except OSError as error:
        return not isinstance(error, (BlockingIOError, PermissionError))
    return True
