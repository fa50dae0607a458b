"""Finds unreadable picture files by their headers, before a run begins, and caches the result."""

import contextlib
import hashlib
import itertools
import logging
import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_cnv2.files import replacing
from keras_cnv2.images.header import picture_size

logger = logging.getLogger(__name__)

# Time limit in seconds: a run should not wait for the headers of millions of files.
SECONDS = 60

# More threads than cores, since they mostly wait for the disk; and the number of files that a thread takes at once.
THREADS, CHUNK = 16, 256

# Bytes read first, and further bytes read if these hold no image size: a JPEG may have much metadata before its size.
HEADS = (2**16, 2**24)


def unreadable(files, max_pixels, memory=None, seconds=SECONDS):
    """Checks the headers of files.

    Args:
        files: List of paths.
        max_pixels: Height times width of the largest picture that is decoded.
        memory: Path of a cache folder. It remembers readable files by path, size and modification time. `None`: no
            cache.
        seconds: Time limit in seconds, after which no further file is checked; the log says so.

    Returns:
        Dict from the index of each unreadable file in the list to the reason.
    """
    memory = memory and Path(memory) / _name(files)
    known, end = _remembered(memory), time.monotonic() + seconds

    def look(chunk):
        with tf.device("cpu"):
            return [None if time.monotonic() > end else _look_at(file, max_pixels, known) for file in chunk]

    with ThreadPoolExecutor(THREADS) as pool:
        chunks = [files[start : start + CHUNK] for start in range(0, len(files), CHUNK)]
        found = [*itertools.chain.from_iterable(pool.map(look, chunks))]
    _remember(memory, [key for key, fault in filter(None, found) if not fault])
    if late := found.count(None):
        logger.warning(
            "%d of %d files were checked in %g s; further unreadable ones are reported when they are loaded",
            len(files) - late,
            len(files),
            seconds,
        )
    return {number: seen[1] for number, seen in enumerate(found) if seen and seen[1]}


def _look_at(file, max_pixels, known):
    """Returns a file's cache key, and the reason why it cannot be read or `None`."""
    try:
        status = os.stat(file)
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would block
            return None, "no regular file"
        facts = f"{os.path.abspath(file)}\0{status.st_size}\0{status.st_mtime_ns}\0{max_pixels}"
        digest = hashlib.blake2b(os.fsencode(facts), digest_size=8).digest()
        key = int.from_bytes(digest, "little")
        return key, None if key in known else fault_of(file, max_pixels)
    except OSError as error:
        return None, error.strerror


def fault_of(file, max_pixels=np.inf):
    """Returns why a file's header is not that of a readable picture, or `None`. Raises `OSError` without a file."""
    height = width = 0
    with open(file, "rb") as opened:
        head = b""
        for count in HEADS:
            head += opened.read(count)
            with contextlib.suppress(tf.errors.OpError):
                height, width = map(int, picture_size(head))
                break
    if min(height, width) <= 0:
        return "no JPEG, PNG, BMP, WebP or GIF picture, or a damaged one"
    if height * width > max_pixels:
        return f"{width} x {height} pixels are more than --max-pixels {max_pixels}"
    return None


def _name(files):
    """Returns the name of the cache file, which depends on the common folder of all files."""
    folder = os.path.commonpath([os.path.abspath(file) for file in (min(files), max(files))])
    return f".headers-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}.npy"


def _remembered(memory):
    if memory is None or not memory.is_file():
        return set()
    try:
        return {*np.load(memory, allow_pickle=False).ravel().tolist()}
    except (OSError, ValueError, EOFError):  # damaged
        return set()


def _remember(memory, keys):
    if memory is not None:
        with contextlib.suppress(OSError):  # not writable: the next run checks again
            memory.parent.mkdir(parents=True, exist_ok=True)
            with replacing(memory) as temporary:
                np.save(temporary, np.array(keys, "uint64"))
