"""`fold`: makes a model for inference with the same outputs and fewer operations."""

from itertools import chain

import keras
import numpy as np
from keras import ops, tree

from keras_cnv2.folding.block import FoldedBlock, Standardize
from keras_cnv2.images.normalization import Preprocessing, pixel_statistics
from keras_cnv2.keras_internals import all_layers, calls_of
from keras_cnv2.layers import ConvNeXtV2Block
from keras_cnv2.layers.built import needs_build
from keras_cnv2.layers.quantized import quantized_as
from keras_cnv2.layers.settings import LORA

# Attributes that are copied to the folded model.
ATTRIBUTES = ("class_names", "image_size", "resize", "pyramid_level_inputs")


def fold(model: keras.Model) -> keras.Model:
    """Makes a model for inference that computes the same outputs with fewer operations.

    - The scale and shift of each LayerNorm in a block or before a downsampling become part of the dense layer or
      convolution that follows.
    - In each block, GRN's beta becomes part of the following bias. GRN's factors, one per image and channel, multiply
      the following kernel instead of the activations where the kernel is smaller.
    - The normalisation of images becomes part of the stem.

    TensorFlow's CPU kernels fuse the remaining operations: a convolution with its bias; a dense layer with its bias and
    GELU.

    ```python
    model = keras_cnv2.ConvNeXtV2Tiny(weights="imagenet", input_shape=(224, 224, 3))
    fast = keras_cnv2.fold(model)
    ```

    If `input_shape` has a fixed height and width, each stage applies GRN's factors in the cheaper way. With variable
    sizes they multiply the activations.

    Args:
        model: A `keras_cnv2.ConvNeXtV2` or `ConvNeXtV2Backbone`, or another functional or sequential model that
            contains one or its layers, like a backbone with a head of your own, made of layers or of `keras.ops`. It is
            not changed.

    Returns:
        A `keras.Model` with the inputs and outputs of `model` and copies of its weights. Use it for inference only: it
        has no drop path and no auxiliary head, takes no masks, and cannot load checkpoints. Save and train `model`.

    Raises:
        ValueError: If `model` is neither functional nor sequential, contains no block, contains a block that is called
            with `hidden`, or is quantized.
    """
    layers = [*_layers(model)]
    if not any(isinstance(layer, ConvNeXtV2Block) for layer in layers):
        raise ValueError(
            "fold takes functional and sequential models that contain a ConvNeXtV2Block; for an FCMAE give its "
            f"backbone. Received: model={model!r}"
        )
    if modes := quantized_as(model):
        raise ValueError(
            "fold and the exports to LiteRT and ONNX do not take quantized models. Export the model before "
            "model.quantize (to LiteRT with quantization='int8'), or export the quantized model as a SavedModel. "
            f"Received: model={model.name!r}, quantized as {', '.join(modes)}"
        )
    return _fold(model)


def _layers(model):
    """Yields the layers of a functional or sequential model, of nested models, and the main layers of blocks."""
    if not isinstance(model, (keras.Function, keras.Sequential)):
        return
    for layer in model.layers:
        yield layer
        yield from _layers(layer)
        if isinstance(layer, ConvNeXtV2Block):
            yield from (layer.dwconv, layer.pwconv1, layer.pwconv2)


def _fold(model):
    graph = model.inference_graph() if hasattr(model, "inference_graph") else model
    _check_masks(graph)
    affine_layers = _affine_layers(graph)
    copies = {}

    def folded(operation):
        if isinstance(operation, (keras.Function, keras.Sequential)):
            return _fold(operation)
        if isinstance(operation, ConvNeXtV2Block):
            return _folded_block(operation)
        if operation in affine_layers.values():
            return _without_affine(operation)
        copies[operation] = _copy(operation)
        return copies[operation]

    new = keras.models.clone_model(graph, clone_function=folded)
    for operation, copy in copies.items():  # after cloning, because some layers have no weights until they are called
        if isinstance(operation, keras.Layer):
            _set_values(copy, _values(operation, affine_layers.get(operation)))
    for name in ATTRIBUTES:
        if hasattr(model, name):
            setattr(new, name, getattr(model, name))
    # A model with a backbone takes the same images as the backbone. The backbone itself is not copied as an attribute,
    # because Keras would track it as part of the new model.
    encoder = getattr(model, "backbone", model)
    if hasattr(encoder, "include_preprocessing"):
        new.include_preprocessing = encoder.include_preprocessing
    if hasattr(encoder, "mean"):
        new.mean, new.std = encoder.mean, encoder.std
    if hasattr(model, "pyramid_level_inputs"):
        levels = model.pyramid_level_inputs.items()
        outputs = {level: new.get_layer(name).output for level, name in levels}
        # Not tracked by Keras, whose own kind of dict cannot be the output of a JAX model.
        object.__setattr__(new, "pyramid_outputs", outputs)
    return new


def _check_masks(model):
    """Raises a `ValueError` if a block of a functional model takes a mask. In a sequential model none can."""
    for node in chain(*getattr(model, "_nodes_by_depth", {}).values()):
        block, arguments = node.operation, node.arguments
        if isinstance(block, ConvNeXtV2Block) and (len(arguments.args) > 1 or "hidden" in arguments.kwargs):
            raise ValueError(
                "fold takes models without masks: call their blocks without `hidden`. "
                f"Received: model={model.name!r}, whose block {block.name!r} is called with `hidden`"
            )


def _affine_layers(model):
    """Finds layers that scale and shift channels and are read by one convolution only.

    Returns:
        Dict {convolution: layer whose scale and shift can become part of it}.
    """
    readers = {}
    # A functional model contains operations of `keras.ops` in addition to layers.
    for operation in getattr(model, "operations", model.layers):
        for tensor in _inputs(operation):
            readers.setdefault(id(tensor), []).append(operation)
    outputs = {id(tensor) for tensor in tree.flatten(model.outputs)}
    pairs = {}
    for layer in model.layers:
        if not _is_affine(layer) or id(layer.output) in outputs:
            continue
        reader, *others = readers.get(id(layer.output), [None])
        if not others and _takes_affine(reader, layer):
            pairs[reader] = layer
    return pairs


def _inputs(operation):
    """Returns the input tensors of all calls of a layer or another operation."""
    return [tensor for node in calls_of(operation) for tensor in node.input_tensors]


def _is_affine(layer):
    if len(calls_of(layer)) != 1:
        return False
    if isinstance(layer, Preprocessing):
        return True
    if not isinstance(layer, keras.layers.LayerNormalization) or layer.gamma is None or layer.beta is None:
        return False
    rank = len(layer.output.shape)
    return [axis % rank for axis in layer.axis] == [rank - 1]


def _takes_affine(reader, layer):
    """Whether the scale and shift of `layer` can become part of `reader`, which must be a convolution.

    Convolutions with padding are excluded, because padding is not shifted. `Preprocessing` is only folded into float32
    convolutions, because values up to 255 are too coarse in half precision.
    """
    if not isinstance(reader, keras.layers.Conv2D) or len(calls_of(reader)) != 1:
        return False
    plain = reader.padding == "valid" and reader.groups == 1 and reader.use_bias
    return plain and (not isinstance(layer, Preprocessing) or reader.compute_dtype == "float32")


def _scale_and_shift(layer):
    if isinstance(layer, Preprocessing):
        mean, std = map(_array, pixel_statistics(layer.output.shape[-1], layer.mean, layer.std))
        return 1 / std, -mean / std
    return _array(layer.gamma), _array(layer.beta)


def _without_affine(layer):
    if isinstance(layer, Preprocessing):
        return ToFloat(name=layer.name)
    return Standardize(layer.epsilon, dtype=layer.dtype_policy, name=layer.name)


def _values(layer, affine_layer=None):
    """Returns the weights of a layer, with the scale and shift of `affine_layer`, if given, folded into them."""
    if affine_layer is None and not _has_lora(layer):
        return layer.get_weights()
    kernel = _array(layer.kernel)  # includes the LoRA update
    if affine_layer is None:
        return [kernel, _array(layer.bias)] if layer.use_bias else [kernel]
    bias = _array(layer.bias)
    scale, shift = _scale_and_shift(affine_layer)
    return [kernel * scale[:, None], bias + np.einsum("hwio,i->o", kernel, shift)]


def _has_lora(operation):
    return getattr(operation, "lora_enabled", False)


def _copy(operation):
    """Returns a new operation with the same configuration, without LoRA."""
    config = operation.get_config()
    if _has_lora(operation):
        config = {name: value for name, value in config.items() if name not in LORA}
    return type(operation).from_config(config)


def _set_values(layer, values):
    layer.set_weights(values)
    for part in all_layers(layer):
        if isinstance(part, keras.layers.Normalization):
            part.finalize_state()  # the layer computes with constants derived from its weights


def _folded_block(block):
    new = FoldedBlock(
        *(block.dim, block.norm.epsilon, block.grn.epsilon, block.dilation), dtype=block.dtype_policy, name=block.name
    )
    new.build((None, None, None, block.dim))
    w1, b1, w2, b2 = (_array(v) for layer in (block.pwconv1, block.pwconv2) for v in (layer.kernel, layer.bias))
    scale, shift = _array(block.norm.gamma), _array(block.norm.beta)
    new.dwconv.set_weights(block.dwconv.get_weights())
    new.pwconv1.set_weights([w1 * scale[:, None], b1 + shift @ w1])
    new.gamma.assign(_array(block.grn.gamma))  # through NumPy, because with JAX both variables would share one array
    new.pwconv2.set_weights([w2, b2 + _array(block.grn.beta) @ w2])
    return new


def _array(values):
    """Returns values as a float64 NumPy array, so that folded weights are rounded only once."""
    return ops.convert_to_numpy(values).astype("float64")


@keras.saving.register_keras_serializable(package="keras_cnv2")
class ToFloat(keras.layers.Layer):
    """Casts images of any dtype to float32.

    Call arguments:
        images: Tensor of any shape and dtype.

    Returns:
        A float32 tensor of the same shape.
    """

    def __init__(self, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.built = not needs_build(self)

    def call(self, images):
        return ops.cast(images, "float32")

    def compute_output_shape(self, input_shape):
        return input_shape
