"""The weights of a model by Keras path, and the updates that LoRA adds to kernels."""

import posixpath

import keras

from keras_cnv2.checkpoints import names
from keras_cnv2.checkpoints.names import part_of
from keras_cnv2.checkpoints.tensor import STEM
from keras_cnv2.keras_internals import all_layers, kernel_without_lora
from keras_cnv2.layers.quantized import quantized_as


def variables_of(model):
    """Returns the model's weights as a dict from Keras paths to variables.

    Raises:
        ValueError: If the model is quantized, has several encoders, or has weights without a name in checkpoints.
    """
    outer = _outer_path(model)
    variables = {variable.path.removeprefix(outer): variable for variable in weights_of(model)}
    unknown = [outer + path for path in variables if names.OFFICIAL.name_of(path) is None]
    if unknown or not variables:
        _check_not_quantized(model)
        raise ValueError(
            "Checkpoints are only for models that consist of this package's layers, under their original names. "
            f"Received: model={model.name!r} with weights {unknown[:5]}"
        )
    if len(variables) < len(weights_of(model)):
        raise ValueError(
            "A checkpoint holds one encoder, but this model has several: give one of them. "
            f"Received: model={model.name!r} with several weights of one name"
        )
    return variables


def variables_of_layers(model):
    """The encoder's weights, by Keras path, in a functional model that holds its layers next to a head of the user."""
    others = {*unnamed(model)}
    named = {variable.path: variable for variable in weights_of(model) if variable.path not in others}
    if {*map(posixpath.dirname, named)} & {*map(posixpath.dirname, others)}:
        return variables_of(model)  # raises an error: a layer of this package has weights that are not of this package
    # "norm" and "head" are left out: the user's own layers may have these names.
    return {path: variable for path, variable in named.items() if part_of(path) not in ("norm", "head")}


def has_stem(model):
    """Whether one of the model's own layers is the stem of an encoder."""
    return any(f"{layer.name}/kernel" == STEM for layer in model.layers)


def unnamed(model):
    """The paths of the weights that have no name in checkpoints."""
    outer = _outer_path(model)
    paths = [variable.path for variable in weights_of(model)]
    return [path for path in paths if names.OFFICIAL.name_of(path.removeprefix(outer)) is None]


def _outer_path(model):
    """The common prefix of the weights' paths: the layers in whose `build` the model was made. It ends in "/"."""
    paths = [variable.path for variable in weights_of(model)]
    layers = {posixpath.dirname(path) for path in paths}
    if all(map(names.OFFICIAL.name_of, paths)) or len(layers) < 2:
        return ""
    common = posixpath.commonpath(layers)
    return f"{common}/" if common else ""


def weights_of(model):
    """The model's weights without those of LoRA."""
    return [v for v in model.weights if not posixpath.basename(v.path).startswith("lora_kernel_")]


def lora_updates(model):
    """The updates that LoRA adds to kernels, as a dict from the ids of the kernels to arrays.

    The property `kernel` of a layer includes the update, but rounded if the layer computes in half precision.
    """
    updates = {}
    for layer in _layers_with_lora(model):
        kernel = kernel_without_lora(layer)
        dtype = keras.backend.result_type(kernel.dtype, "float32")
        a, b = (keras.ops.cast(weight, dtype) for weight in (layer.lora_kernel_a, layer.lora_kernel_b))
        update = layer.lora_alpha / layer.lora_rank * keras.ops.matmul(a, b)
        update = keras.ops.cast(update, kernel.dtype)
        updates[id(kernel)] = keras.ops.convert_to_numpy(update)
    return updates


def forget_lora(model, variables):
    """Resets LoRA for the kernels that were set: it adds nothing to them, as in a new layer."""
    kernels = {id(variable) for variable in variables.values()}
    for layer in _layers_with_lora(model):
        if id(kernel_without_lora(layer)) in kernels:
            layer.lora_kernel_b.assign(keras.ops.zeros(layer.lora_kernel_b.shape))


def _layers_with_lora(model):
    return [layer for layer in all_layers(model) if getattr(layer, "lora_enabled", False)]


def _check_not_quantized(model):
    """Raises a `ValueError` for a quantized model: its weights are not those that checkpoints hold."""
    if modes := quantized_as(model):
        raise ValueError(
            "The weights of a quantized model cannot be loaded from a checkpoint or saved to one: load or save them "
            f"first, then quantize. Received: model={model.name!r}, quantized as {', '.join(modes)}"
        )
