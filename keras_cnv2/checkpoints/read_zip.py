"""Zip archives as PyTorch and Keras write them."""

import io
import struct
import zipfile

from keras_cnv2.errors import CheckpointError


def open_zip(file, stack):
    """A `zipfile.ZipFile` whose entries together hold no more than the file."""
    archive = stack.enter_context(zipfile.ZipFile(file))
    entries = archive.infolist()
    stored = all(e.compress_type == zipfile.ZIP_STORED and e.compress_size == e.file_size for e in entries)
    if not stored or sum(entry.file_size for entry in entries) > file.seek(0, io.SEEK_END):
        raise CheckpointError(
            "PyTorch and Keras never compress what they save; this file is compressed and may be a zip bomb."
        )
    return archive


def place_of(file, entry):
    """Where the bytes of a stored entry begin in the file of the archive, and how many they are.

    Args:
        file: Open file.
        entry: `zipfile.ZipInfo` of an entry that the archive could open: its local header is there.
    """
    file.seek(entry.header_offset)
    header = file.read(30)
    return entry.header_offset + len(header) + sum(struct.unpack("<2H", header[26:])), entry.file_size
