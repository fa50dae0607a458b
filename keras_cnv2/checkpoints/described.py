"""A safetensors file that says which Keras model it is of: a checkpoint of training, with the optimizer's state.

Its metadata hold, as JSON, the configuration that a `.keras` file of the model would have, and which tensors are the
model's weights, by Keras path; other tensors do not count.
"""

from keras_cnv2.checkpoints.read_keras import metadata_in
from keras_cnv2.errors import CheckpointError

# Where it stands among the metadata of a safetensors file that are ours.
DESCRIPTION = "model"

# Beside it: {name of a tensor: CRC-32 of its bytes}. And among all metadata, the CRC-32 of our text.
CHECKSUMS, CHECKSUM = "checksums", "checksum"


def description(config, weights):
    """The description of a model, for the metadata.

    Args:
        config: What `keras.saving.serialize_keras_object` makes of the model.
        weights: Dict from the paths of its weights, in their order, to the names of tensors.
    """
    return {"config": config, "weights": weights}


def described(tensors, found):
    """Tensors, metadata and configuration, as of a `.keras` file.

    Args:
        tensors: Dict from names to lazy arrays, all there are.
        found: The description, whatever it is.

    Raises:
        CheckpointError: If it is none, or is of other tensors.
    """
    config, weights = (found.get(name) for name in ("config", "weights")) if isinstance(found, dict) else (None, None)
    is_model = isinstance(config, dict) and isinstance(config.get("config"), dict)
    if not is_model or not isinstance(weights, dict) or not {*map(str, weights.values())} <= tensors.keys():
        raise CheckpointError(f"the description of the model makes no sense. Received: {str(found)[:200]}")
    return {path: tensors[name] for path, name in weights.items()}, metadata_in(config), config
