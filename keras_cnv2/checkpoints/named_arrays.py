"""Returns a model's weights with the names and layouts of PyTorch implementations."""

import logging
import posixpath

import keras
import numpy as np

from keras_cnv2.checkpoints import names
from keras_cnv2.checkpoints.architecture import architecture_of, stage_count
from keras_cnv2.checkpoints.names import part_of
from keras_cnv2.checkpoints.variables import (
    has_stem,
    lora_updates,
    unnamed,
    variables_of,
    variables_of_layers,
    weights_of,
)
from keras_cnv2.keras_internals import all_layers
from keras_cnv2.sizes import size_of

logger = logging.getLogger(__name__)

NAMINGS = ("official", "timm", "transformers")
# In these sizes, timm has 1x1 convolutions in place of the linear layers of the blocks.
CONV_MLP_SIZES = ("atto", "femto", "pico", "nano")


def state_dict(model: keras.Model, naming: str = "official") -> dict[str, np.ndarray]:
    """Returns the model's weights with the names and layouts of a PyTorch implementation.

    ```python
    weights = keras_cnv2.state_dict(keras_cnv2.ConvNeXtV2Atto())
    weights["head.weight"]  # (1000, 320)
    weights["stages.0.0.dwconv.weight"]  # (40, 1, 7, 7)
    ```

    Args:
        model: A classifier, backbone or FCMAE; or a model of your own on an encoder of this package, of which only the
            encoder is taken, and a log line names the layers that are left out.
        naming: "official", the names of facebookresearch/ConvNeXt-V2 (FCMAE's encoder has the prefix "encoder.");
            "timm", which has 1x1 convolutions in atto to nano; or "transformers". The last two have no names for
            FCMAE's decoder, and "timm" has none for a pyramid's norms: these are left out, and a log line says so. In
            "transformers", a backbone with pyramid norms has the names of a `ConvNextV2Backbone`.

    Returns:
        Dict from names to NumPy arrays in PyTorch's layout; `load_checkpoint` takes it. LoRA updates are added to the
        kernels.

    Raises:
        ValueError: If the naming is unknown, the model is quantized, or it does not hold exactly one encoder of this
            package.
    """
    return named_arrays(*with_names(model), naming)


def named_arrays(model, variables, naming):
    """Does the work of `state_dict`, from the values that `with_names` returns."""
    updates = lora_updates(model)
    dialect = _dialect(naming, variables)
    translated = {path: dialect.name_of(path) for path in variables}
    dropped = sorted({part_of(path) for path, found in translated.items() if found is None})
    if dropped:
        logger.warning("%s: left out (no names in %s): %s", model.name, naming, ", ".join(dropped))

    def values(path):
        array, update = keras.ops.convert_to_numpy(variables[path]), updates.get(id(variables[path]))
        return array if update is None else array + update

    return {
        found[0]: np.ascontiguousarray(found[1].to_there(values(path))) for path, found in translated.items() if found
    }


def with_names(model):
    """Finds the part of a model whose weights have names in checkpoints.

    Returns:
        A model, and its weights as a dict from Keras paths to variables. The model is `model` itself for a classifier,
        a backbone or an FCMAE, and the encoder in any other model. If that encoder is no model of its own but layers of
        `model`, it is `model` with the weights of the encoder only.

    Raises:
        ValueError: As in `state_dict`.
    """
    if stage_count(getattr(model, "out_levels", None), getattr(model, "stem_stride", None)) < 4:
        raise ValueError(
            "A checkpoint holds whole encoders, but this backbone ends at its last level: save it as a .keras file. "
            f"Received: model={model.name!r} with out_levels={model.out_levels}"
        )
    encoders = [part for part in all_layers(model) if isinstance(part, keras.Model) and has_stem(part)]
    if len(encoders) != 1 or not unnamed(model):
        return model, variables_of(model)
    (encoder,) = encoders
    variables = variables_of(encoder) if encoder is not model else variables_of_layers(model)
    written = {*map(id, variables.values())}
    left_out = sorted({posixpath.dirname(v.path) for v in weights_of(model) if id(v) not in written})
    logger.warning("%s: a checkpoint can only hold the encoder, left out: %s", model.name, ", ".join(left_out))
    return encoder, variables


def _dialect(naming, variables):
    """The dialect in which to write these weights."""
    if naming not in NAMINGS:
        raise ValueError(f"naming must be one of {NAMINGS}. Received: naming={naming!r}")
    architecture = architecture_of({path: tuple(variable.shape) for path, variable in variables.items()})
    if naming == "official":
        return names.OFFICIAL_FCMAE if architecture.decoder_dim else names.OFFICIAL
    if naming == "transformers":
        return names.TRANSFORMERS_BARE if architecture.has_pyramid_norms else names.TRANSFORMERS
    conv_mlp = size_of(architecture.depths, architecture.dims) in CONV_MLP_SIZES
    return names.TIMM_CONV_MLP if conv_mlp else names.TIMM
