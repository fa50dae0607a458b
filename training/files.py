"""JSON and text files, written completely or not at all."""

import json
from pathlib import Path

from keras_cnv2.files import replacing

from .errors import RunError


def read_json(path, kind=dict):
    """Reads a JSON file of a run, whose content must be a `kind`, e.g. a dict.

    Raises:
        RunError: If the file is no JSON file, or has other content.
        OSError: If the file cannot be read.
    """
    try:
        content = json.loads(Path(path).read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise RunError(f"This is not a JSON file; remove it or its folder. Received: {path} ({error})") from error
    if not isinstance(content, kind):
        raise RunError(
            f"This is not a file of a run, which would hold a {kind.__name__}; remove it or its folder. "
            f"Received: {path}, which holds a {type(content).__name__}"
        )
    return content


def write_json(path, content):
    """Writes `content` to a temporary name, then renames it."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path, text):
    """Writes `text` to a temporary name, then renames it."""
    with replacing(Path(path)) as temporary:
        temporary.write_text(text, "utf-8")
