"""The encoder in a Keras file of a larger model: a segmenter, a detector, or a model of the user's own."""

from keras_cnv2.checkpoints.names import part_of
from keras_cnv2.errors import CheckpointError

# The parts that are loaded. "head" and "decoder" are not: the user's own layers may have the same names.
PARTS = ("encoder", "pyramid_norms")
OURS = {f"keras_cnv2>{name}" for name in ("ConvNeXtV2", "ConvNeXtV2Backbone", "FCMAE")}


def is_around_encoder(config):
    """Whether a Keras model's configuration describes another model than those in `OURS`; false for `None`."""
    return config is not None and config.get("registered_name") not in OURS


def without_surroundings(tensors, left_over):
    """Separates the encoder's tensors from those of the layers around it.

    Args:
        tensors: Dict from Keras paths to `Tensor`.
        left_over: Names of tensors that belong to no layer of this package.

    Returns:
        A dict like `tensors` with the encoder's alone, and a list of the names of the layers that are left out.

    Raises:
        CheckpointError: If the file holds a second encoder.
    """
    if second := [name for name in left_over if name.startswith("stem_conv/")]:
        raise CheckpointError(
            "The file is of a model with several encoders, nothing was loaded: load it with "
            f"keras.saving.load_model, and take the encoder that is meant. Received: {', '.join(second)}"
        )
    kept = {path: tensor for path, tensor in tensors.items() if part_of(path) in PARTS}
    names = [*left_over, *(tensor.name for path, tensor in tensors.items() if path not in kept)]
    return kept, sorted({name.rpartition("/")[0] for name in names})


def absent_levels(paths, tensors):
    """Returns the names of pyramid norms that a file lacks although it has others.

    For example, a detector does not use the finest level of the pyramid.

    Args:
        paths: Keras paths of the model's weights.
        tensors: Dict from the Keras paths in the file to `Tensor`.
    """
    levels, held = (
        {path.rpartition("/")[0] for path in some if part_of(path) == "pyramid_norms"} for some in (paths, tensors)
    )
    return sorted(levels - held) if held else []
