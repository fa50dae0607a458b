"""Files and folders that appear whole or not at all."""

import contextlib
import os
import tempfile
from pathlib import Path

# How names of folders begin in which things are written; one that is left is of a process that was killed.
WRITING = ".writing-"


def check_target(path):
    """Raises an `OSError` if there cannot be a file at `path`."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no such folder to write to. Received: {path}")
    if path.is_dir():
        raise IsADirectoryError(f"There is a folder where the file should be. Received: {path}")


@contextlib.contextmanager
def replacing(path):
    """Gives the path of a temporary file beside `path` to write to, which then takes its place, or goes on an error."""
    check_target(path)
    # In a folder of its own: the name, whose ending may matter, stays the same.
    with tempfile.TemporaryDirectory(prefix=WRITING, dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        yield temporary
        os.replace(temporary, path)


@contextlib.contextmanager
def new_folder(path, overwrite=False):
    """Gives the path of a temporary folder beside `path`, which then takes its place, or goes on an error.

    Args:
        path: Of the folder to be.
        overwrite: Whether a SavedModel or an empty folder that is there gives way. It does when the new one is whole.

    Raises:
        OSError: If there is something at `path` that may not be replaced, or no folder to put it into.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no such folder to write to. Received: {path}")
    if path.exists() and not (overwrite and _may_go(path)):
        raise FileExistsError(f"There is something already; give another path or delete it. Received: {path}")
    # The name does not begin with a digit: TensorFlow Serving takes such folders for versions.
    with tempfile.TemporaryDirectory(prefix=WRITING, dir=path.parent) as folder:
        temporary = Path(folder) / "new"
        temporary.mkdir()
        yield temporary
        old = Path(folder) / "old"
        if overwrite and path.exists():
            os.replace(path, old)
        try:
            os.replace(temporary, path)
        except BaseException:
            if old.exists():
                os.replace(old, path)
            raise


def _may_go(path):
    """Whether what `path` names can be made again: not a folder of other things that was named by mistake."""
    return path.is_dir() and ((path / "saved_model.pb").is_file() or not any(path.iterdir()))
