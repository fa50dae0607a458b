"""Inputs and outputs of any model on the stem and stages of this package, including heads of the user's own."""

import itertools

import keras

from keras_cnv2.checkpoints.metadata import own_statistics
from keras_cnv2.images.normalization import preprocess_input
from keras_cnv2.keras_internals import all_layers, calls_of, source_of
from keras_cnv2.models.backbone import ConvNeXtV2Backbone
from keras_cnv2.models.classifier import ConvNeXtV2
from keras_cnv2.models.stages import STEM, pyramid_layers

# Names of a single output, by its activation.
KINDS = {"softmax": "probabilities", "sigmoid": "probabilities", "linear": "logits"}

# Names that exports use for the input and for the flags of decoded image files. No output can have these names.
TAKEN = ("images", "decoded")

# Layers that do not change the kind of the values, so the activation before them counts.
TRANSPARENT = (keras.layers.Activation, keras.layers.Dropout, keras.layers.Flatten, keras.layers.Reshape)


def stem_of(model):
    """Returns the first convolution of the encoder in a model.

    Args:
        model: A classifier, a backbone, or a functional or sequential model that holds one or its layers.

    Raises:
        ValueError: If the model does not hold exactly one encoder, or is not built.
    """
    found = [layer for layer in _operations(model) if layer.name == STEM]
    if len(found) != 1 or not model.built:
        raise ValueError(
            "The model must be a ConvNeXtV2, a ConvNeXtV2Backbone, or a functional or sequential model on one of them, "
            "called once on images; for an FCMAE, give its backbone, `fcmae.backbone`. "
            f"Received: model={model!r}, which holds {len(found)} encoders"
        )
    return found[0]


def _operations(model):
    """Yields the layers and operations of a functional or sequential model and of the models nested in it, in order."""
    if isinstance(model, (keras.Function, keras.Sequential)):
        for operation in getattr(model, "operations", model.layers):
            yield operation
            yield from _operations(operation)


def takes_pixels(model):
    """Whether a model takes images in 0..255 rather than normalised ones.

    For an encoder without preprocessing, layers of the user before it are assumed to normalise the images, unless they
    only augment, resize, crop or pad.
    """
    encoder = model if hasattr(model, "include_preprocessing") else getattr(model, "backbone", None)
    if encoder is not None:
        return getattr(encoder, "include_preprocessing", True)  # other packages' backbones normalise images themselves
    before = itertools.takewhile(lambda operation: operation.name != STEM, _operations(model))
    return not all(map(_keeps_values, before))


def as_taken(model, images):
    """Returns images in 0..255 unchanged if the model takes them so, else normalised. Works in graphs, too."""
    return images if takes_pixels(model) else preprocess_input(images, *own_statistics(model))


def _keeps_values(operation):
    """Whether an operation keeps the value range of images: an input, a nested model, augmentation, resizing etc."""
    if isinstance(operation, (keras.layers.InputLayer, keras.Function, keras.Sequential)):
        return True
    return type(operation).__name__.startswith(("Rand", "Resizing", "CenterCrop", "ZeroPadding", "Cropping"))


def named_outputs(model):
    """Returns a dict from names to symbolic outputs, for exports.

    The outputs of a backbone are the levels of its pyramid. A single output is called "probabilities" or "logits", or
    "scores" if its activation is another or unknown. The output of a classifier without its top is called "pooled", or
    by its level of the pyramid. Several outputs have the keys of their dict, or else the names of their layers.

    Raises:
        ValueError: If two outputs have the same name, if exports cannot use a name, or if an output is not a single
            tensor.
    """
    if isinstance(model, ConvNeXtV2Backbone):
        return levels_of(model)
    if isinstance(model, ConvNeXtV2) and not model.include_top:
        return {"pooled" if model.pooling else [*levels_of(model)][-1]: model.output}
    if isinstance(model, keras.Function) and isinstance(model.output, dict):
        names, outputs = [*model.output], [*model.output.values()]
    elif len(model.outputs) == 1:
        return {kind_of(model): model.outputs[0]}
    else:
        names, outputs = [source_of(tensor).operation.name for tensor in model.outputs], model.outputs
    can_be = all(isinstance(name, str) and name and name not in TAKEN for name in names)
    if not can_be or len({*names}) < len(names) or not all(map(keras.backend.is_keras_tensor, outputs)):
        raise ValueError(
            "Each output of an exported model must be a single tensor with a name of its own, other than "
            f"{' and '.join(map(repr, TAKEN))}: return a dict of such outputs. Received: {names}"
        )
    return dict(zip(names, outputs))


def levels_of(model):
    """Returns {level: symbolic feature map} of a backbone's pyramid levels, or of a classifier's stages."""
    layers = getattr(model, "pyramid_level_inputs", None) or pyramid_layers(model.depths, model.stem_stride)
    return {level: model.get_layer(name).output for level, name in layers.items()}


def features_of(model):
    """Returns {name: symbolic features} of a backbone or a classifier: its levels, and "pooled" `(N, channels)`."""
    found = levels_of(model)
    has_norm = any(layer.name == "norm" for layer in model.layers)
    last = [*found.values()][-1]
    pooled = model.get_layer("norm").output if has_norm else keras.layers.GlobalAveragePooling2D(name="pool")(last)
    return {**found, "pooled": pooled}


def activation_of(tensor):
    """The last activation before an output: "softmax", "sigmoid" or "linear"; `None` for any other activation."""
    operation, node, index = source_of(tensor)
    if isinstance(operation, (keras.Function, keras.Sequential)):
        return activation_of(operation.outputs[index])
    activation = getattr(operation, "activation", None)
    if isinstance(operation, TRANSPARENT) and activation in (None, keras.activations.linear):
        return activation_of(calls_of(operation)[node].input_tensors[0])
    if type(operation).__name__ in ("Softmax", "Sigmoid"):  # a layer or an operation of keras.ops
        return type(operation).__name__.lower()
    return next((name for name in KINDS if activation is getattr(keras.activations, name)), None)


def kind_of(model):
    """The name for a model's only output: "probabilities" or "logits"; "scores" for values of any other kind."""
    return KINDS.get(activation_of(model.outputs[0]), "scores")


def classes_of(model):
    """The number of classes: the length of a model's only output `(N, classes)`, or `None` for other outputs."""
    if isinstance(model, ConvNeXtV2):
        return model.classes if model.include_top else None
    if not isinstance(model, (keras.Function, keras.Sequential)) or not model.built or len(model.outputs) != 1:
        return None
    shape = model.outputs[0].shape
    return shape[1] if len(shape) == 2 else None


def compute_dtypes(model):
    """The set of dtypes, as strings, in which the layers of a model compute."""
    return {layer.compute_dtype for layer in all_layers(model) if not isinstance(layer, keras.layers.InputLayer)}


def channels_of(model):
    """The number of channels of a model's images; for an FCMAE, a segmenter or a detector, those of its backbone."""
    return getattr(model, "backbone", model).input_shape[-1]
