"""What exported models put out, and for which images."""

import keras

from keras_cnv2.arguments import is_positive_int
from keras_cnv2.fcmae import FCMAE
from keras_cnv2.models.backbone import ConvNeXtV2Backbone
from keras_cnv2.models.classifier import ConvNeXtV2
from keras_cnv2.models.pictures import class_names
from keras_cnv2.models.stages import pyramid_layers, total_stride
from keras_cnv2.segmentation import labels as pixel_labels
from keras_cnv2.segmentation.deeplab import is_deeplab
from keras_cnv2.segmentation.upernet import UPerNet

INPUT_DTYPES = ("float32", "uint8")


def check_backend(kind):
    """Raises a `ValueError` unless the backend of Keras is TensorFlow, by which `kind` is made."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"{kind} is made with TensorFlow as the backend of Keras: set KERAS_BACKEND=tensorflow. "
            f"Received: backend={keras.backend.backend()!r}"
        )


def has_classes(model):
    """Whether the model is a classifier with its top."""
    return isinstance(model, ConvNeXtV2) and model.include_top


def is_segmenter(model):
    """Whether the model is a UPerNet or a DeepLabV3+ of this package, on a backbone of this package."""
    on_ours = isinstance(getattr(model, "backbone", None), ConvNeXtV2Backbone)
    return on_ours and (isinstance(model, UPerNet) or is_deeplab(model))


def labels_of(model):
    """The names of the classes of a classifier or a segmentation model, numbers if it has none, otherwise `None`.

    Those of a segmentation model are of all that its class map may hold: with a single class, all else is the first.

    Raises:
        ValueError: If the name of a class has several lines.
    """
    if is_segmenter(model):
        classes = model.classes if isinstance(model, UPerNet) else model.num_classes
        names = getattr(model, "class_names", None)
        labels = names or tuple(map(str, range(pixel_labels.labels_of(classes))))
        labels = ("background", *names) if names and classes == 1 else labels
    elif has_classes(model):
        labels = class_names(model)
    else:
        return None
    return one_line_each(labels)


def one_line_each(labels):
    """The labels, or a `ValueError`: they become the lines of a file."""
    for label in labels:
        if len(label.splitlines()) != 1:
            raise ValueError(f"Names of classes have one line each, to be exported. Received: {label!r}")
    return labels


def with_features(model):
    """A functional model with the outputs "pooled", "P2" and so on and, of a classifier, "scores"."""
    outputs = _levels(model)
    last = [*outputs.values()][-1]
    has_norm = any(layer.name == "norm" for layer in model.layers)
    outputs["pooled"] = (
        model.get_layer("norm").output if has_norm else keras.layers.GlobalAveragePooling2D(name="pool")(last)
    )
    if has_classes(model):
        outputs["scores"] = model.output
    return keras.Model(model.input, outputs, name=model.name)


def with_named_outputs(model):
    """The model with a dict as its output.

    "probabilities" or "logits" of a classifier ("scores" with another activation); "P2" to "P5" of a backbone; "P5" or,
    with pooling, "pooled" of a classifier without its top.
    """
    outputs = {_output_name(model): model.output} if isinstance(model, ConvNeXtV2) else _levels(model)
    return keras.Model(model.input, outputs, name=model.name)


def _levels(model):
    """{level: feature map}: those of a backbone, and of a classifier those of its stages."""
    layers = getattr(model, "pyramid_level_inputs", None) or pyramid_layers(model.depths, model.stem_stride)
    return {level: model.get_layer(name).output for level, name in layers.items()}


def _output_name(model):
    if not model.include_top:
        return "pooled" if model.pooling else [*pyramid_layers(model.depths, model.stem_stride)][-1]
    activation = keras.activations.get(model.classifier_activation)
    names = {
        keras.activations.softmax: "probabilities",
        keras.activations.sigmoid: "probabilities",
        keras.activations.linear: "logits",
    }
    return names.get(activation, "scores")


def image_sides(model, image_size):
    """Height and width of the images that an export takes, `None` where they are open."""
    model = model.backbone if is_segmenter(model) else model
    known = model.image_size if isinstance(model, FCMAE) else tuple(model.input_shape[1:3])
    if image_size is None:
        return known
    smallest = total_stride(model.stem_stride)
    fits = is_positive_int(image_size) and image_size >= smallest
    if not fits or any(side not in (None, image_size) for side in known):
        raise ValueError(
            f"image_size must be an int from {smallest} on that the model's images of {known} pixels allow. "
            f"Received: image_size={image_size!r}"
        )
    return image_size, image_size


def takes_pixels(model):
    """Whether a model takes images in 0..255, rather than normalised ones."""
    encoder = model if hasattr(model, "include_preprocessing") else model.backbone
    return getattr(encoder, "include_preprocessing", True)  # backbones of others see to it themselves


def check_input_dtype(model, input_dtype):
    """Raises a `ValueError` unless the model can have images of this dtype."""
    if input_dtype not in INPUT_DTYPES:
        raise ValueError(f"input_dtype must be one of {INPUT_DTYPES}. Received: input_dtype={input_dtype!r}")
    if input_dtype == "uint8" and not takes_pixels(model):
        raise ValueError(
            'Models with include_preprocessing=False take normalised images, input_dtype="float32". '
            f"Received: input_dtype={input_dtype!r}"
        )
