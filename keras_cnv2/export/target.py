"""Folders that appear whole or not at all."""

import contextlib
import os
import tempfile
from pathlib import Path

from keras_cnv2.checkpoints.write import WRITING


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
