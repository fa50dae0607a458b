"""The encoder in a Keras file of a model around one: a segmenter, a detector, a model of the user's own."""

from keras_cnv2.checkpoints.names import part_of
from keras_cnv2.errors import CheckpointError

# What a model around an encoder has of ours; a layer of its own may be called like one of our head's or decoder's.
PARTS = ("encoder", "pyramid_norms")
OURS = {f"keras_cnv2>{name}" for name in ("ConvNeXtV2", "ConvNeXtV2Backbone", "FCMAE")}


def is_around_encoder(config):
    """Whether a configuration of a Keras model, if there is one, is of another model than those of this package."""
    return config is not None and config.get("registered_name") not in OURS


def without_surroundings(tensors, left_over):
    """The encoder's tensors alone, and the names of the layers that are left out.

    Args:
        tensors: Dict from Keras paths to `Tensor`.
        left_over: Names of tensors that mean nothing to us.

    Raises:
        CheckpointError: If there is a second encoder.
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
    """The norms of pyramid levels that the model around the encoder does not take, a detector those of the finest.

    Args:
        paths: Keras paths of the weights that are looked for.
        tensors: Those that there are; where they have no such norm at all, none is absent.
    """
    levels, held = (
        {path.rpartition("/")[0] for path in some if part_of(path) == "pyramid_norms"} for some in (paths, tensors)
    )
    return sorted(levels - held) if held else []
