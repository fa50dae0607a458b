"""Zip archives in the form in which PyTorch and Keras write them: without compression."""

import io
import struct
import zipfile

from keras_cnv2.errors import CheckpointError


def open_zip(file, stack):
    """Opens a zip archive. Raises a `CheckpointError` if it is compressed, or its entries exceed the file's size."""
    archive = stack.enter_context(zipfile.ZipFile(file))
    entries = archive.infolist()
    stored = all(e.compress_type == zipfile.ZIP_STORED and e.compress_size == e.file_size for e in entries)
    if not stored or sum(entry.file_size for entry in entries) > file.seek(0, io.SEEK_END):
        raise CheckpointError(
            "PyTorch and Keras never compress what they save; this file is compressed and may be a zip bomb."
        )
    return archive


def place_of(file, entry):
    """Returns the position of a stored entry's first byte in the file, and the entry's size in bytes.

    Args:
        file: Open file of the archive.
        entry: `zipfile.ZipInfo` of an entry that has been opened before, so that its local header is known to be valid.
    """
    file.seek(entry.header_offset)
    header = file.read(30)
    return entry.header_offset + len(header) + sum(struct.unpack("<2H", header[26:])), entry.file_size
