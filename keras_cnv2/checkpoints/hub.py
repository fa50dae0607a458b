"""Published weights from the Hugging Face hub, through its library: its cache, progress bar and environment variables."""

import errno
import logging

from keras_cnv2.checkpoints.errors import CheckpointError

logger = logging.getLogger(__name__)


def download(row):
    """The path of a published checkpoint in the hub's cache, downloaded if it is not there yet.

    Args:
        row: `Checkpoint`.

    Raises:
        CheckpointError: If it cannot be had.
    """
    from huggingface_hub import hf_hub_download

    logger.warning("%s: the licence of these weights is %s", row.name, row.licence)
    try:
        return hf_hub_download(row.repository, row.file)
    except Exception as error:  # of the hub's library, its HTTP library and the operating system
        raise CheckpointError(
            f"The weights {row.name} could not be had: {_reason(error)}. Ways out: run it again, what was downloaded is "
            f"kept; or download {row.file} of {row.repository} elsewhere and give its path as weights; or, if it is in "
            "the cache (HF_HOME) already, set HF_HUB_OFFLINE=1; HF_ENDPOINT names a mirror. "
            f"Received: {type(error).__name__}: {error}"
        ) from error


def is_cached(row):
    """Whether the checkpoint is in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(row.repository, row.file), str)


def _reason(error):
    from huggingface_hub import errors

    if _has_cause(error, lambda cause: getattr(cause, "errno", None) == errno.ENOSPC):
        return "the disk is full"
    if isinstance(error, errors.OfflineModeIsEnabled) or _has_cause(
        error, lambda cause: isinstance(cause, errors.OfflineModeIsEnabled)
    ):
        return "they are not in the cache, and HF_HUB_OFFLINE forbids to ask the hub"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return "they are not in the cache, and the hub cannot be reached"
    if isinstance(error, (errors.RepositoryNotFoundError, errors.EntryNotFoundError, errors.RevisionNotFoundError)):
        return "the hub has no such repository or file, or it is not open to you"
    return "the download broke off"


def _has_cause(error, is_it):
    """Whether an error, or one that led to it, is of some kind."""
    while error is not None and not is_it(error):
        error = error.__cause__ or error.__context__
    return error is not None
