"""The encoder in a Keras file of a larger model: a segmenter, a detector, or a model of the user's own."""

from keras_cnv2.checkpoints.names import part_of
from keras_cnv2.errors import CheckpointError

# The parts that are loaded. "head" and "decoder" are not: the user's own layers may have the same names.
PARTS = ("encoder", "pyramid_norms")
# Maximum number of names that an error message shows.
SHOWN = 5
OURS = {f"keras_cnv2>{name}" for name in ("ConvNeXtV2", "ConvNeXtV2Backbone", "FCMAE")}


def is_around_encoder(config):
    """Whether a Keras model's configuration describes another model than those in `OURS`; false for `None`."""
    return config is not None and config.get("registered_name") not in OURS


def has_surroundings(tensors, left_over):
    """Whether a file has layers around the encoder, by their names.

    They may all be called like layers of this package: a "head" without a "norm" is none of its classifiers', and
    "proj" or "pred" without a mask token are no decoder of an FCMAE.

    Args:
        tensors, left_over: As in `without_surroundings`.
    """
    parts = {part_of(path) for path in tensors}
    is_own_head = "head" in parts and "norm" not in parts
    is_own_decoder = "decoder" in parts and "mask_token/token" not in tensors
    return bool(left_over) or is_own_head or is_own_decoder


def without_surroundings(dialect, tensors, left_over):
    """Separates the encoder's tensors from those of the layers around it.

    Args:
        dialect: The `Dialect` of the file.
        tensors: Dict from Keras paths to `Tensor`.
        left_over: Names of tensors that belong to no layer of this package.

    Returns:
        A dict like `tensors` with the encoder's alone, and a list of the names of the layers that are left out.

    Raises:
        CheckpointError: If it is open which layers are the encoder's, because others have the same names.
    """
    if second := sorted(name for name in left_over if _is_second(dialect, name)):
        more = ", ..." if len(second) > SHOWN else ""
        raise CheckpointError(
            "The file is of a model with several encoders, or with layers of its own that are called like the "
            "encoder's; nothing was loaded: load it with keras.saving.load_model, and take the encoder that is meant. "
            f"Received: {', '.join(second[:SHOWN])}{more}"
        )
    kept = {path: tensor for path, tensor in tensors.items() if part_of(path) in PARTS}
    names = [*left_over, *(tensor.name for path, tensor in tensors.items() if path not in kept)]
    return kept, sorted({name.rpartition("/")[0] for name in names})


def _is_second(dialect, name):
    """Whether a name is that of a weight of the encoder, with the suffix of the second of this name in a file."""
    first, suffix, _ = name.partition(" (")
    place = dialect.path_of(first) if suffix else None
    return place is not None and part_of(place[0]) in PARTS


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
