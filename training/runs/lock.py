"""Keeps other processes and threads out of a run's folder while it is trained."""

import contextlib
import logging
import os
import shutil
import threading
from pathlib import Path
from typing import NamedTuple

from keras_cnv2.checkpoints import model_folder

from ..errors import RunError
from .names import CONFIG

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

logger = logging.getLogger(__name__)


class Claim(NamedTuple):
    """Keeps other processes and threads out of a run.

    Args:
        held: The file descriptor that holds the lock of the run's folder, `None` if locks are not supported.
        thread: The thread that trains the run.
        is_new: Whether there was no run in the folder before.
    """

    held: int | None
    thread: threading.Thread
    is_new: bool


# Folders of the runs of this process -> their claims.
_claimed = {}


def claim(folder, is_new):
    """Reserves the run in this folder for this thread until `release`, or the end of this process.

    Raises:
        RunError: If another process or thread is already training it: their checkpoints would be mixed up.
    """
    earlier = _claimed.get(folder.resolve())
    if earlier and earlier.thread is threading.current_thread():
        return
    if earlier and not earlier.thread.is_alive():
        release(folder)
    _claimed[folder.resolve()] = Claim(_locked(folder), threading.current_thread(), is_new)


def _locked(folder):
    """Locks a folder. Returns the file descriptor that holds the lock; `None` if locks are not supported."""
    if fcntl is None:
        return None
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(held)
        raise RunError(
            "Another process or thread is training the run of this name; wait for it, or give another --name. "
            f"Received: {folder}"
        ) from error
    except OSError as error:  # the file system does not support locks
        os.close(held)
        logger.warning("%s cannot be locked (%s): let no other process train there", folder, error)
        return None
    return held


@contextlib.contextmanager
def releasing(folder):
    """A context that releases the run in this folder at its end. After an error, removes a new run that never began."""
    try:
        yield
    except BaseException:
        _remove_unbegun(Path(folder))
        raise
    finally:
        release(folder)


def _remove_unbegun(folder):
    """Removes the folder of a new run of this thread if it holds only the files that `open_run` writes."""
    claim = _claimed.get(folder.resolve())
    if not claim or claim.thread is not threading.current_thread() or not claim.is_new:
        return
    if {path.name for path in folder.iterdir()} <= {CONFIG, model_folder.FILE}:
        shutil.rmtree(folder, ignore_errors=True)


def release(folder):
    """Releases the run in this folder if this thread holds it. Needed e.g. in notebooks, where the process goes on."""
    folder = Path(folder).resolve()
    claim = _claimed.get(folder)
    if claim and (claim.thread is threading.current_thread() or not claim.thread.is_alive()):
        del _claimed[folder]
        if claim.held is not None:
            os.close(claim.held)
