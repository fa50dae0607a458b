"""Outputs, class names and image sizes of exported models, and checks of what can be exported."""

import keras

from keras_cnv2.arguments import is_positive_int
from keras_cnv2.detection.detector import Detector
from keras_cnv2.fcmae import FCMAE
from keras_cnv2.images.classes import numbered
from keras_cnv2.models.backbone import ConvNeXtV2Backbone
from keras_cnv2.models.classifier import ConvNeXtV2
from keras_cnv2.models.heads import classes_of, compute_dtypes, named_outputs, stem_of, takes_pixels
from keras_cnv2.models.pictures import class_names, framing_of, image_size_of
from keras_cnv2.models.stages import INPUT, pyramid_layers, total_stride
from keras_cnv2.segmentation import labels as pixel_labels
from keras_cnv2.segmentation.deeplab import is_deeplab
from keras_cnv2.segmentation.upernet import UPerNet

INPUT_DTYPES = ("float32", "uint8")


def check_backend(kind):
    """Raises a `ValueError` unless the backend of Keras is TensorFlow, which exports of this `kind` need."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"{kind} is made with TensorFlow as the backend of Keras: set KERAS_BACKEND=tensorflow. "
            f"Received: backend={keras.backend.backend()!r}"
        )


def is_segmenter(model):
    """Whether the model is a UPerNet or a DeepLabV3+ of this package, on a backbone of this package."""
    on_ours = isinstance(getattr(model, "backbone", None), ConvNeXtV2Backbone)
    return on_ours and (isinstance(model, UPerNet) or is_deeplab(model))


def is_detector(model):
    """Whether the model is a `Detector` or a RetinaNet, whose class cannot be imported without KerasCV."""
    return isinstance(model, Detector) or hasattr(model, "box_head")


def check_exportable(model):
    """Raises a `ValueError` unless the model is a classifier, a backbone, or a user's model on one, of images."""
    if is_segmenter(model) or is_detector(model):
        raise ValueError(
            "Segmentation and detection models can only be exported as SavedModels: use export_saved_model. "
            f"Received: model={model!r}"
        )
    stem_of(model)
    if len(model.inputs) != 1 or len(model.inputs[0].shape) != 4:
        shapes = [tuple(tensor.shape) for tensor in model.inputs]
        raise ValueError(f"Exported models have one input, images (N, H, W, channels). Received: inputs of {shapes}")


def is_encoder(model):
    """Whether the model has no head, only features: a backbone, or a classifier without its top."""
    return isinstance(model, ConvNeXtV2Backbone) or (isinstance(model, ConvNeXtV2) and not model.include_top)


def labels_of(model, names=None):
    """Returns the class names of a model's outputs: `names`, the model's own, or "class 0" and so on.

    Returns `None` if the model has no classes, or if it returns "scores" and no names are known. For a segmentation
    model there is one name for each value of its class map: with a single class, the first one is "background".

    Raises:
        ValueError: If a class name has several lines, or names are given for a model that does not return one row of
            class values for each image.
    """
    if is_segmenter(model):
        classes = model.classes if isinstance(model, UPerNet) else model.num_classes
        names = names or getattr(model, "class_names", None)
        labels = names or numbered(pixel_labels.labels_of(classes))
        labels = ("background", *names) if names and classes == 1 else labels
    elif isinstance(model, FCMAE) or classes_of(model) is None:
        if names is not None:
            raise ValueError(f"class_names are for models that return one row of classes. Received: model={model!r}")
        return None
    elif "scores" in named_outputs(model) and not (names or getattr(model, "class_names", None)):
        return None
    else:
        labels = class_names(model, names)
    return one_line_each(labels)


def one_line_each(labels):
    """Returns the labels. Raises a `ValueError` unless each is one line of text: they become the lines of a file."""
    for label in labels:
        if not isinstance(label, str) or len(label.splitlines()) != 1 or not _is_unicode(label):
            raise ValueError(f"Class names must be text of one line each, to be exported. Received: {label!r}")
    return labels


def _is_unicode(text):
    """Whether a string has no lone surrogates, which Python uses for bytes that it cannot decode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def with_features(model):
    """Returns a functional model of an encoder or a classifier with the outputs "P2" and so on, and "pooled"."""
    outputs = _levels(model)
    last = [*outputs.values()][-1]
    has_norm = any(layer.name == "norm" for layer in model.layers)
    outputs["pooled"] = (
        model.get_layer("norm").output if has_norm else keras.layers.GlobalAveragePooling2D(name="pool")(last)
    )
    return keras.Model(model.input, outputs, name=model.name)


def with_named_outputs(model):
    """Returns the model with a dict as its output: the levels of a backbone, otherwise `named_outputs`."""
    if isinstance(model, ConvNeXtV2Backbone):
        return keras.Model(model.input, _levels(model), name=model.name)
    if isinstance(model, ConvNeXtV2):
        return keras.Model(model.input, named_outputs(model), name=model.name)
    # Wrapped in a new model, because its own input has another name and the model may be part of other models.
    names, images = named_outputs(model), keras.Input(tuple(model.inputs[0].shape[1:]), name=INPUT)
    outputs = model(images)
    outputs = outputs if isinstance(outputs, dict) else dict(zip(names, keras.tree.flatten(outputs)))
    return keras.Model(images, outputs, name=model.name)


def _levels(model):
    """Returns {level: feature map} of a backbone's pyramid levels, or of a classifier's stages."""
    layers = getattr(model, "pyramid_level_inputs", None) or pyramid_layers(model.depths, model.stem_stride)
    return {level: model.get_layer(name).output for level, name in layers.items()}


def image_sides(model, image_size):
    """Returns the height and width of the images that an export takes, `None` where they are variable."""
    model = model.backbone if is_segmenter(model) else model
    known = model.image_size if isinstance(model, FCMAE) else tuple(model.input_shape[1:3])
    if image_size is None:
        return known
    smallest = smallest_side(model)
    fits = is_positive_int(image_size) and image_size >= smallest
    if not fits or any(side not in (None, image_size) for side in known):
        raise ValueError(
            f"image_size must be an int of at least {smallest} that fits the model's input height and width, {known}. "
            f"Received: image_size={image_size!r}"
        )
    return image_size, image_size


def smallest_side(model):
    """Returns the side of the smallest images that a model takes, in pixels."""
    stride = model.stem_stride if isinstance(model, FCMAE) else stem_of(model).strides[0]
    return total_stride(stride)


def pictures_of(model, sides, resize=None):
    """Returns the size to which image files are resized, and how.

    Args:
        model: The exported model.
        sides: Height and width of the images that the export takes, `None` where they are variable.
        resize: Optional "crop" or "squash", the user's choice.

    Returns:
        (height, width) and "crop" or "squash". If images are not square, or are those of an encoder with variable size
        and no `image_size`: `sides` and `None`.
    """
    if sides[0] != sides[1] or (sides[0] is None and is_encoder(model) and image_size_of(model) is None):
        return sides, None
    framing = framing_of(model, sides[0], resize)
    return (framing.size, framing.size), framing.resize


def check_float32(model):
    """Raises a `ValueError` unless a model computes in float32, as LiteRT and ONNX exports require."""
    others = compute_dtypes(model) - {"float32"}
    if others:
        raise ValueError(
            "The model must be in float32: load its weights into a float32 model, or convert it with `keras-cnv2 "
            "convert` to .safetensors, which has no dtype policy, and export that. "
            f"Received: layers in {', '.join(others)}"
        )


def check_input_dtype(model, input_dtype):
    """Raises a `ValueError` unless the export can take images of this dtype."""
    if input_dtype not in INPUT_DTYPES:
        raise ValueError(f"input_dtype must be one of {INPUT_DTYPES}. Received: input_dtype={input_dtype!r}")
    if input_dtype == "uint8" and not takes_pixels(model):
        raise ValueError(
            'Models with include_preprocessing=False take normalised images, input_dtype="float32". '
            f"Received: input_dtype={input_dtype!r}"
        )
