"""Reads weights in several files, by the index in which transformers names the file of each tensor."""

import re
from pathlib import Path

from keras_cnv2.checkpoints.read_json import read_json
from keras_cnv2.checkpoints.read_safetensors import open_safetensors
from keras_cnv2.checkpoints.read_torch import open_torch
from keras_cnv2.errors import CheckpointError

READERS = {".safetensors": open_safetensors, ".bin": open_torch}

# Files next to the index, never in another folder.
FILE = re.compile(r"[A-Za-z0-9][\w.-]*(\.safetensors|\.bin)", re.ASCII)

# More than any model of this kind is split into.
MOST = 1000


def files_in(path):
    """Returns the names of the files that an index names, sorted.

    Raises:
        CheckpointError: If the index is invalid.
    """
    return sorted({*_map_in(path).values()})


def open_index(path, stack):
    """Returns the tensors of the files that an index names, which stand next to it."""
    places, tensors = _map_in(path), {}
    for name in sorted({*places.values()}):
        part = Path(path).parent / name
        if not part.is_file():
            raise CheckpointError(f"a file of the index is missing. Received: {name}")
        (held, *_) = READERS[part.suffix](part, stack)
        claimed = {tensor for tensor, place in places.items() if place == name}
        if wrong := claimed ^ held.keys():
            raise CheckpointError(
                f"the index and {name} name different tensors. Get both again. Received: {sorted(wrong)[:5]}"
            )
        tensors |= held
    return (tensors,)


def _map_in(path):
    """Returns the dict from names of tensors to names of files."""
    places = read_json(path).get("weight_map")
    files = {*map(str, places.values())} if isinstance(places, dict) else set()
    if not files or len(files) > MOST or not all(map(FILE.fullmatch, files)):
        raise CheckpointError(
            f'{path}: an index must have a "weight_map" from names of tensors to files next to it. '
            f"Received: {str(sorted(files)[:5] or places)[:200]}"
        )
    return {str(tensor): str(file) for tensor, file in places.items()}
