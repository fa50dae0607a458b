"""A safetensors file that describes its Keras model: a checkpoint of training, with the optimizer's state.

Its metadata hold, as JSON, the configuration that a `.keras` file of the model would have, and the names of the tensors
that are the model's weights, by Keras path. All other tensors are ignored here.
"""

from keras_cnv2.checkpoints.read_keras import metadata_in
from keras_cnv2.errors import CheckpointError

# The key of the description, in this package's entry of a safetensors file's metadata.
DESCRIPTION = "model"

# CHECKSUMS stands next to it: {name of a tensor: CRC-32 of its bytes}. CHECKSUM stands in the file's metadata: the
# CRC-32 of the text of this package's entry.
CHECKSUMS, CHECKSUM = "checksums", "checksum"


def description(config, weights):
    """Returns the description of a model, for the metadata.

    Args:
        config: The model, serialized with `keras.saving.serialize_keras_object`.
        weights: Dict from the paths of the model's weights, in the order of the weights, to names of tensors.
    """
    return {"config": config, "weights": weights}


def described(tensors, found):
    """Returns tensors, metadata and configuration, like the reader of `.keras` files.

    Args:
        tensors: Dict from names to lazy arrays, all that the file holds.
        found: The description as it was read, not yet checked.

    Raises:
        CheckpointError: If the description is invalid, or names tensors that the file does not hold.
    """
    config, weights = (found.get(name) for name in ("config", "weights")) if isinstance(found, dict) else (None, None)
    is_model = isinstance(config, dict) and isinstance(config.get("config"), dict)
    if not is_model or not isinstance(weights, dict) or not {*map(str, weights.values())} <= tensors.keys():
        raise CheckpointError(f"the description of the model makes no sense. Received: {str(found)[:200]}")
    return {path: tensors[name] for path, name in weights.items()}, metadata_in(config), config
