"""What travels with weights: the names of the classes and how pictures become images.

A dict with any of "class_names" (one string a class), "image_size" (int, pixels) and "resize" ("crop" or "squash").
"""

from keras_cnv2.arguments import is_positive_int
from keras_cnv2.checkpoints.errors import CheckpointError
from keras_cnv2.preprocessing import RESIZES

# Where it stands among the metadata of a safetensors file, as JSON.
KEY = "keras_cnv2"

CHECKS = {
    "class_names": lambda names: isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names),
    "image_size": is_positive_int,
    "resize": lambda resize: resize in RESIZES,
}


def check_metadata(metadata):
    """Returns `metadata`, or raises a `CheckpointError` if it is not of the form above."""
    if not isinstance(metadata, dict) or any(not CHECKS[name](metadata[name]) for name in CHECKS.keys() & metadata):
        raise CheckpointError(f"the metadata of the weights make no sense. Received: {str(metadata)[:200]}")
    return {name: metadata[name] for name in CHECKS if name in metadata}


def metadata_of(model):
    """The metadata that a model carries."""
    found = {name: getattr(model, name, None) for name in CHECKS}
    return {name: value for name, value in found.items() if value is not None and CHECKS[name](value)}
