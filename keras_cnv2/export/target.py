"""Folders that appear whole or not at all."""

import contextlib
import os
import tempfile
from pathlib import Path


@contextlib.contextmanager
def new_folder(path, overwrite=False):
    """Gives the path of a temporary folder beside `path`, which then takes its place, or goes on an error.

    Args:
        path: Of the folder to be.
        overwrite: Whether a folder that is there gives way. It does when the new one is whole.

    Raises:
        OSError: If there is something at `path` that may not be replaced, or no folder to put it into.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no such folder to write to. Received: {path}")
    if path.exists() and not (overwrite and path.is_dir()):
        raise FileExistsError(f"There is something already; give another path or delete it. Received: {path}")
    # The name does not begin with a digit: TensorFlow Serving takes such folders for versions.
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=path.parent) as folder:
        temporary = Path(folder) / "new"
        temporary.mkdir()
        yield temporary
        if overwrite and path.exists():
            os.replace(path, Path(folder) / "old")
        os.replace(temporary, path)
