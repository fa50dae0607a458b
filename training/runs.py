"""A run's folder: complete or not there."""

import contextlib
import json
import platform
import tempfile
from importlib import import_module
from pathlib import Path

PACKAGES = ("keras_cnv2", "keras", "tensorflow", "numpy")


@contextlib.contextmanager
def run_folder(runs, name):
    """Gives a temporary folder to write into, which becomes `runs/name` when all went well and vanishes otherwise.

    Args:
        runs: Path of the folder of all runs; made if it is not there.
        name: Name of this run.

    Raises:
        FileExistsError: If there is such a run. Nothing is ever overwritten.
    """
    final = Path(runs) / name
    check_new(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=final.parent) as temporary:
        work = Path(temporary) / name
        work.mkdir()
        yield work
        check_new(final)
        work.rename(final)


def check_new(folder):
    """Raises a `FileExistsError` if there is something at this path."""
    if folder.exists():
        raise FileExistsError(f"There is a run of this name; give another --name. Received: {folder}")


def write_json(path, content):
    """Writes `content` to a temporary name, then renames it."""
    temporary = Path(f"{path}.tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    temporary.replace(path)


def versions():
    """The versions of Python and of the packages that decide the numbers."""
    return {"python": platform.python_version()} | {name: import_module(name).__version__ for name in PACKAGES}
