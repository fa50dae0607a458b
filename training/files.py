"""JSON and text files, written whole or not at all."""

import json
from pathlib import Path

from keras_cnv2.files import replacing

from .errors import RunError


def read_json(path):
    """What a JSON file holds."""
    try:
        return json.loads(Path(path).read_text("utf-8"))
    except ValueError as error:
        raise RunError(f"This is no JSON file; remove it or its folder. Received: {path} ({error})") from error


def write_json(path, content):
    """Writes `content` to a temporary name, then renames it."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path, text):
    """Writes `text` to a temporary name, then renames it."""
    with replacing(Path(path)) as temporary:
        temporary.write_text(text, "utf-8")
