"""A folder that says in its model.json which of its files is its model, like that of a run of training."""

import json
import os
import re
from pathlib import Path

from keras_cnv2.errors import CheckpointError

FILE = "model.json"

# Of a file in the folder or in one below; "*" stands for anything.
PATTERN = re.compile(r"[\w*-][\w.*-]*(/[\w*-][\w.*-]*)?")


def is_model_folder(path):
    """Whether there is such a folder at `path`, a string or a path."""
    return isinstance(path, (str, os.PathLike)) and os.path.isfile(os.path.join(path, FILE))


def models_in(folder):
    """The files of the first pattern in a folder's model.json that there are any of, the newest first.

    Raises:
        CheckpointError: If model.json holds something else, or there is no such file yet.
    """
    path = Path(folder) / FILE
    try:
        patterns = json.loads(path.read_text("utf-8"))["weights"]
        fits = isinstance(patterns, list) and all(PATTERN.fullmatch(pattern) for pattern in patterns)
    except (ValueError, RecursionError, KeyError, TypeError):
        fits = False
    if not fits:
        raise CheckpointError(f"This file must name the weights of its folder. Received: {path}")
    for pattern in patterns:
        if found := sorted(filter(Path.is_file, Path(folder).glob(pattern))):
            return found[::-1]
    raise CheckpointError(f"There are no weights in this folder yet. Received: {folder}, without {', '.join(patterns)}")
