"""Downloads published weights with the Hugging Face hub's library, so its cache and environment variables apply."""

import contextlib
import errno
import logging
import os
import re
import threading
import time
from pathlib import Path
from typing import NamedTuple

from keras_cnv2.checkpoints.bundled import sha256_of
from keras_cnv2.errors import CheckpointError

logger = logging.getLogger(__name__)

ATTEMPTS = 3
# Allowed form of ETags and commits, since the library uses them as file names.
SAFE_NAME = re.compile("[0-9A-Za-z][0-9A-Za-z._+=-]{0,127}")
# Held while a function of the hub's library is replaced, see `_checked_headers`.
HEADERS = threading.Lock()
# Recognised by their texts, since hf_xet's errors have no error numbers.
DISK_FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))


class Download(NamedTuple):
    """A published checkpoint in the hub's cache.

    Args:
        path: Path of the file.
        commit: The commit of its repository, as the hub named it.
        sha256: SHA-256 of the file.
    """

    path: Path
    commit: str
    sha256: str


class Place(NamedTuple):
    """A file of a repository.

    Args:
        name: What to call it in messages.
        repository: Repository on the hub.
        file: File in the repository.
        revision: Commit, tag or branch of the repository; `None` for the newest commit.
        sha256: Checksum of the file, or `None` if it is not known.
    """

    name: str
    repository: str
    file: str
    revision: str | None
    sha256: str | None = None


class _NotAsPromised(Exception):
    """A file with another SHA-256 than the hub or the checkpoint's row promises."""


def download(row):
    """Finds a published checkpoint in the hub's cache, and downloads it if it is not there yet.

    Its SHA-256 is compared with the row's and with the one that the hub names. A file with another SHA-256 is removed
    from the cache.

    Args:
        row: `Checkpoint`.

    Returns:
        `Download`.

    Raises:
        CheckpointError: If it cannot be downloaded, written to the cache or verified.
    """
    logger.warning("%s: the licence of these weights is %s", row.name, row.licence)
    return _download(row, f"name it {row.name}.safetensors and give its path as weights")


def find(place):
    """Does the same for any file of any repository, except that nothing is known of its SHA-256 but what the hub names.

    Args:
        place: `Place`.

    Returns:
        `Download`, or `None` if the repository does not have this file.

    Raises:
        CheckpointError: As `download`.
    """
    return _download(place, "and its other files, and give their folder as weights", is_missing=_has_no_file)


def _download(row, advice, is_missing=lambda row, error: False):
    for attempts_left in reversed(range(ATTEMPTS)):
        try:
            return _check(row, *_get(row))
        except Exception as error:  # raised by the hub's library, its HTTP library or the operating system
            if is_missing(row, error):
                return None
            if not (attempts_left and _broke_off(error)):
                raise CheckpointError(
                    f"Could not get the weights {row.name}: {_reason(error)}. Try one of: run it again; download "
                    f"{row.file} of {row.repository} elsewhere, {advice}; set HF_HOME to a cache that has it, and "
                    "HF_HUB_OFFLINE=1 to use only this cache; set HF_ENDPOINT to a mirror. "
                    f"Received: {_told(error)}"
                ) from error
        logger.warning("%s: the download broke off, trying again", row.name)
        time.sleep(1)


def _has_no_file(place, error):
    """Whether an error says that a repository lacks a file: the hub itself, or the cache if the hub must not be asked
    and the cache has the commit.

    A file that could not be downloaded for another reason is not missing: the model would silently be another one.
    """
    from huggingface_hub import errors, try_to_load_from_cache

    if not isinstance(error, errors.LocalEntryNotFoundError):
        return isinstance(error, errors.EntryNotFoundError)
    is_offline = any(isinstance(cause, errors.OfflineModeIsEnabled) for cause in _causes(error))
    known = try_to_load_from_cache(place.repository, place.file, revision=place.revision)
    is_one_of_several = re.fullmatch("[0-9a-f]{40}", place.revision or "") is not None
    # `known` is an object in place of a path if the cache has the hub's answer that there is no such file.
    return (is_offline and is_one_of_several) or not (known is None or isinstance(known, str))


def _get(row):
    """Returns the path of a file in the cache, and its ETag if known, else `None`."""
    from huggingface_hub import hf_hub_download

    with _checked_headers() as etags:
        path = Path(hf_hub_download(row.repository, row.file, revision=row.revision))
    # If the hub was not asked: on systems with symbolic links, the path is a link to a file named after its ETag.
    return path, etags[-1] if etags else path.readlink().name if path.is_symlink() else None


@contextlib.contextmanager
def _checked_headers():
    """Checks commits and ETags before the hub's library uses them as file names. Yields a list that collects the ETags.

    The library has no hook for this. It requests the headers of a file through one function, which is replaced inside
    this context. This affects other threads, too, but their ETags are not collected.
    """
    from huggingface_hub import file_download
    from huggingface_hub.errors import FileMetadataError

    etags, thread = [], threading.get_ident()

    def check(what, name):
        if not (name is None or SAFE_NAME.fullmatch(name)):
            # The error that the library raises for a server that is no hub: it then looks into its cache.
            raise FileMetadataError(f"The hub names an invalid {what}: {name[:80]!r}")

    def checked(*args, **kwargs):
        try:
            metadata = ask(*args, **kwargs)
        except Exception as error:  # the library notes in the cache, under the commit, that a file is missing
            headers = getattr(getattr(error, "response", None), "headers", {})
            check("commit", headers.get("X-Repo-Commit"))
            raise
        check("commit", metadata.commit_hash)
        check("ETag", metadata.etag)
        if threading.get_ident() == thread:
            etags.append(metadata.etag)
        return metadata

    with HEADERS:
        ask = file_download.get_hf_file_metadata
        file_download.get_hf_file_metadata = checked
        try:
            yield etags
        finally:
            file_download.get_hf_file_metadata = ask


def _check(row, path, etag):
    """Returns the `Download` for a file; raises `_NotAsPromised` if it has another SHA-256 than promised."""
    found = sha256_of(path)
    # The ETag of a large file is its SHA-256, that of a small one its Git hash.
    promised = etag if etag and re.fullmatch("[0-9a-f]{64}", etag) else None
    for whose, expected in (("of the checkpoint", row.sha256), ("that the hub names", promised)):
        if expected not in (None, found):
            removed = _remove(path)
            raise _NotAsPromised(
                f"{row.file} does not have the SHA-256 {whose}, {expected}, and {removed}. Received: {found}"
            )
    commit = path.parents[len(Path(row.file).parts) - 1].name  # snapshots/COMMIT/FILE
    logger.debug("%s: %s of %s at commit %s, SHA-256 %s", row.name, row.file, row.repository, commit, found)
    return Download(path, commit, found)


def _remove(path):
    """Removes a file from the cache, with the target if it is a link. Returns the words for the error message."""
    blob = path.parent / path.readlink() if path.is_symlink() else path
    try:
        path.unlink()
        if blob != path and blob.parent.name == "blobs":
            blob.unlink()
    except OSError:  # no permission to write to the cache
        return f"cannot be removed from the cache: {path}"
    return "is removed from the cache"


def is_cached(row):
    """Whether the checkpoint is in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(row.repository, row.file, revision=row.revision), str)


def _broke_off(error):
    """Whether to try again: a connection failed, or the file arrived with another SHA-256.

    The hub's library itself repeats only some requests, and which ones depends on its version. Errors of hf_xet are not
    tried again, since it has already tried for minutes.
    """
    return isinstance(error, _NotAsPromised) or type(error).__module__.partition(".")[0] in (
        "requests",
        "httpx",
        "httpx2",
    )


def _reason(error):
    from huggingface_hub import errors

    causes = [*_causes(error)]
    if isinstance(error, _NotAsPromised):
        return "the downloaded file is not the expected one"
    if any(text in str(cause) for cause in causes for text in DISK_FULL):
        return "the disk is full"
    if any(isinstance(cause, errors.OfflineModeIsEnabled) for cause in causes):
        return "they are not in the cache, and HF_HUB_OFFLINE forbids asking the hub"
    if {401, 403, 404} & {getattr(getattr(cause, "response", None), "status_code", None) for cause in causes}:
        return "the hub has no such repository or file, or you have no access to it"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return "they are not in the cache, and the hub cannot be reached or is out of order"
    if isinstance(error, OSError) and error.filename:
        return "the cache cannot be written"
    return "the download broke off"


def _causes(error):
    """Yields an error and the errors that caused it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _told(error):
    """Describes an error in one line. If the hub's library only says that it has no file, the cause is described."""
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError):
        error = error.__cause__ or error
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
