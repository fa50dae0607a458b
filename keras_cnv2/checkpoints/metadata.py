"""What travels with a classifier's weights: the names of the classes and how pictures become images.

A dict with any of "class_names" (one string a class), "image_size" (int, pixels) and "resize" ("crop" or "squash").
"""

from keras_cnv2.arguments import is_positive_int
from keras_cnv2.checkpoints.errors import CheckpointError
from keras_cnv2.preprocessing import RESIZES

# Where it stands among the metadata of a safetensors file, as JSON.
KEY = "keras_cnv2"

# Pixels. More than any model of this kind can use, less than would fill a memory.
MAX_IMAGE_SIZE = 4096

CHECKS = {
    "class_names": lambda names: isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names),
    "image_size": lambda size: is_positive_int(size) and size <= MAX_IMAGE_SIZE,
    "resize": lambda resize: resize in RESIZES,
}


def check_metadata(metadata):
    """Returns `metadata`, or raises a `CheckpointError` if it is not of the form above."""
    if not isinstance(metadata, dict):
        raise CheckpointError(f"the metadata of the weights make no sense. Received: {str(metadata)[:200]}")
    known = {name: metadata[name] for name in CHECKS if name in metadata}
    for name, value in known.items():
        if not CHECKS[name](value):
            raise CheckpointError(f"the metadata of the weights make no sense. Received: {name}={str(value)[:200]}")
    return known


def adopt_metadata(model, metadata):
    """Gives a classifier what it was not given itself; encoders have no use for it.

    An image size that the model's input forbids is left, and a way to resize belongs to its size.
    """
    if not hasattr(model, "class_names"):
        return
    if model.class_names is None and "class_names" in metadata:
        model.class_names = tuple(metadata["class_names"])
    image_size = metadata.get("image_size")
    if model.image_size is None and model.input_shape[1:3] == (None, None):
        model.image_size = image_size
    if model.resize is None and model.image_size == image_size:
        model.resize = metadata.get("resize")


def metadata_of(model):
    """The metadata that a model carries."""
    found = {name: getattr(model, name, None) for name in CHECKS}
    return {name: value for name, value in found.items() if value is not None and CHECKS[name](value)}
