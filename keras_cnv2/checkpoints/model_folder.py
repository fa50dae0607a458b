"""A folder with a model.json that names the weights file in it, such as the folder of a training run."""

import json
import os
import re
from pathlib import Path

from keras_cnv2.errors import CheckpointError

FILE = "model.json"

# Allowed patterns: a file in the folder or in a direct subfolder; "*" stands for any characters.
PATTERN = re.compile(r"[\w*-][\w.*-]*(/[\w*-][\w.*-]*)?")


def is_model_folder(path):
    """Whether `path`, a string or a path, is a folder with a model.json."""
    return isinstance(path, (str, os.PathLike)) and os.path.isfile(os.path.join(path, FILE))


def models_in(folder):
    """Returns the files that match the first pattern in model.json that matches any, in descending order of name.

    The names of checkpoints hold their step, so the newest one comes first.

    Raises:
        CheckpointError: If model.json is invalid, or no file matches yet.
    """
    path = Path(folder) / FILE
    try:
        patterns = json.loads(path.read_text("utf-8"))["weights"]
        fits = isinstance(patterns, list) and all(PATTERN.fullmatch(pattern) for pattern in patterns)
    except (ValueError, RecursionError, KeyError, TypeError):
        fits = False
    if not fits:
        raise CheckpointError(
            f'This file must name the weights of its folder, as {{"weights": ["PATTERN", ...]}}. Received: {path}'
        )
    for pattern in patterns:
        if found := sorted(filter(Path.is_file, Path(folder).glob(pattern))):
            return found[::-1]
    raise CheckpointError(f"There are no weights in this folder yet. Received: {folder}, without {', '.join(patterns)}")
