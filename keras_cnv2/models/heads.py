"""What a model around our stem and stages takes and gives, whoever put its head on."""

import itertools

import keras

from keras_cnv2.images.normalization import preprocess_input
from keras_cnv2.models.classifier import ConvNeXtV2
from keras_cnv2.models.stages import STEM, pyramid_layers

# What a single output is called, by its activation.
KINDS = {"softmax": "probabilities", "sigmoid": "probabilities", "linear": "logits"}

# What exports call their input, and what they say of pictures: no output can have these names.
TAKEN = ("images", "decoded")

# Layers that leave open what the values they pass on are.
TRANSPARENT = (keras.layers.Activation, keras.layers.Dropout, keras.layers.Flatten, keras.layers.Reshape)


def stem_of(model):
    """The convolution with which the encoder in a model begins.

    Args:
        model: A classifier, a backbone, or a functional or sequential model that holds one or its layers.

    Raises:
        ValueError: If there is none, or more than one.
    """
    found = [layer for layer in _operations(model) if layer.name == STEM]
    if len(found) != 1 or not model.built:
        raise ValueError(
            "The model must be a ConvNeXtV2, a ConvNeXtV2Backbone, or a functional or sequential model on one of them, "
            "called once on images; of an FCMAE take its backbone, `fcmae.backbone`. "
            f"Received: model={model!r}, which holds {len(found)} encoders"
        )
    return found[0]


def _operations(model):
    """The layers and operations of a functional or sequential model, and of those within it, in their order."""
    if isinstance(model, (keras.Function, keras.Sequential)):
        for operation in getattr(model, "operations", model.layers):
            yield operation
            yield from _operations(operation)


def takes_pixels(model):
    """Whether a model takes images in 0..255, rather than normalised ones.

    Layers of the user's own before an encoder without preprocessing are taken to see to it, unless they move pixels
    alone.
    """
    encoder = model if hasattr(model, "include_preprocessing") else getattr(model, "backbone", None)
    if encoder is not None:
        return getattr(encoder, "include_preprocessing", True)  # backbones of others see to it themselves
    before = itertools.takewhile(lambda operation: operation.name != STEM, _operations(model))
    return not all(map(_keeps_values, before))


def as_taken(model, images):
    """Images in 0..255 as a model takes them: as they are, or normalised; in graphs too."""
    return images if takes_pixels(model) else preprocess_input(images)


def _keeps_values(operation):
    """Whether an operation leaves the range of pixels as it is: no operation at all, or augmentation and resizing."""
    if isinstance(operation, (keras.layers.InputLayer, keras.Function, keras.Sequential)):
        return True
    return type(operation).__name__.startswith(("Rand", "Resizing", "CenterCrop", "ZeroPadding", "Cropping"))


def named_outputs(model):
    """{name: symbolic output} of a model with a head.

    A single output is "probabilities", "logits" or, of another or an unknown activation, "scores"; of a classifier
    without its top, what its layer is called in exports. Several have the names of their layers, or those of a dict.

    Raises:
        ValueError: If two outputs have the same name, or an output has one that exports cannot give it, or is no tensor
            but several.
    """
    if isinstance(model, ConvNeXtV2) and not model.include_top:
        level = [*pyramid_layers(model.depths, model.stem_stride)][-1]
        return {"pooled" if model.pooling else level: model.output}
    if isinstance(model, keras.Function) and isinstance(model.output, dict):
        names, outputs = [*model.output], [*model.output.values()]
    elif len(model.outputs) == 1:
        return {kind_of(model): model.outputs[0]}
    else:
        names, outputs = [tensor._keras_history.operation.name for tensor in model.outputs], model.outputs
    can_be = all(isinstance(name, str) and name and name not in TAKEN for name in names)
    if not can_be or len({*names}) < len(names) or not all(map(keras.backend.is_keras_tensor, outputs)):
        raise ValueError(
            "Outputs that are exported are a tensor each, of different names, and none is called "
            f"{' or '.join(map(repr, TAKEN))}: return a dict of them. Received: {names}"
        )
    return dict(zip(names, outputs))


def activation_of(tensor):
    """The last activation before an output: "softmax", "sigmoid", "linear", or `None` for any other."""
    operation, node, index = tensor._keras_history
    if isinstance(operation, (keras.Function, keras.Sequential)):
        return activation_of(operation.outputs[index])
    activation = getattr(operation, "activation", None)
    if isinstance(operation, TRANSPARENT) and activation in (None, keras.activations.linear):
        return activation_of(operation._inbound_nodes[node].input_tensors[0])
    if type(operation).__name__ in ("Softmax", "Sigmoid"):  # a layer, or an operation of keras.ops
        return type(operation).__name__.lower()
    return next((name for name in KINDS if activation is getattr(keras.activations, name)), None)


def kind_of(model):
    """What a model's only output is: "probabilities", "logits", or "scores" for numbers of any other kind."""
    return KINDS.get(activation_of(model.outputs[0]), "scores")


def classes_of(model):
    """How many numbers a model gives for each image, if it gives one row of them; otherwise `None`."""
    if isinstance(model, ConvNeXtV2):
        return model.classes if model.include_top else None
    if not isinstance(model, (keras.Function, keras.Sequential)) or not model.built or len(model.outputs) != 1:
        return None
    shape = model.outputs[0].shape
    return shape[1] if len(shape) == 2 else None


def compute_dtypes(model):
    """The dtypes in which the layers of a model compute, by name."""
    return {layer.compute_dtype for layer in model._flatten_layers() if not isinstance(layer, keras.layers.InputLayer)}


def channels_of(model):
    """The channels of a model's images, that of an FCMAE's or another head's backbone as well."""
    return getattr(model, "backbone", model).input_shape[-1]
