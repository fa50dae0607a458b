"""Published weights from the Hugging Face hub, through its library: its cache, progress bar and variables."""

import errno
import logging
import os
import time

from keras_cnv2.errors import CheckpointError

logger = logging.getLogger(__name__)

ATTEMPTS = 3
# Recognised by their texts, for hf_xet's errors have no numbers.
DISK_FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))


def download(row):
    """The path of a published checkpoint in the hub's cache, downloaded if it is not there yet.

    Args:
        row: `Checkpoint`.

    Raises:
        CheckpointError: If it cannot be had.
    """
    from huggingface_hub import hf_hub_download

    logger.warning("%s: the licence of these weights is %s", row.name, row.licence)
    for attempts_left in reversed(range(ATTEMPTS)):
        try:
            return hf_hub_download(row.repository, row.file)
        except Exception as error:  # of the hub's library, its HTTP library and the operating system
            if not (attempts_left and _broke_off(error)):
                raise CheckpointError(
                    f"The weights {row.name} could not be had: {_reason(error)}. Ways out: run it again; or download "
                    f"{row.file} of {row.repository} elsewhere, call it {row.name}.safetensors and give its path as "
                    "weights; or set HF_HOME to a cache that has it, with HF_HUB_OFFLINE=1 to ask no hub; or set "
                    "HF_ENDPOINT to a mirror. "
                    f"Received: {_told(error)}"
                ) from error
        logger.warning("%s: the download broke off, trying again", row.name)
        time.sleep(1)


def is_cached(row):
    """Whether the checkpoint is in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(row.repository, row.file), str)


def _broke_off(error):
    """Whether a connection ended too early. The hub's library repeats some of these, which ones changes.

    Errors of hf_xet are none of them: it has tried for minutes.
    """
    return type(error).__module__.partition(".")[0] in ("requests", "httpx", "httpx2")


def _reason(error):
    from huggingface_hub import errors

    causes = [*_causes(error)]
    if any(text in str(cause) for cause in causes for text in DISK_FULL):
        return "the disk is full"
    if any(isinstance(cause, errors.OfflineModeIsEnabled) for cause in causes):
        return "they are not in the cache, and HF_HUB_OFFLINE forbids to ask the hub"
    if {401, 403, 404} & {getattr(getattr(cause, "response", None), "status_code", None) for cause in causes}:
        return "the hub has no such repository or file, or it is not open to you"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return "they are not in the cache, and the hub cannot be reached or is out of order"
    if isinstance(error, OSError) and error.filename:
        return "the cache cannot be written"
    return "the download broke off"


def _causes(error):
    """An error and those that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _told(error):
    """One line of what happened: where the hub's library says no more than that it has no file, what led to it."""
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError):
        error = error.__cause__ or error
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
