"""Zip archives as PyTorch and Keras write them."""

import io
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
