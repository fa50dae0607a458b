"""A model from its checkpoint alone."""

import contextlib
from math import prod

import keras
import numpy as np

from keras_cnv2.checkpoints.architecture import architecture_of
from keras_cnv2.checkpoints.convert import load_contents, shape_of, tell_of_not_finite, translate
from keras_cnv2.checkpoints.keras_config import check_config
from keras_cnv2.checkpoints.metadata import default_activation
from keras_cnv2.checkpoints.source import fetch_weights, open_weights
from keras_cnv2.errors import CheckpointError
from keras_cnv2.fcmae import FCMAE
from keras_cnv2.layers.quantized import quantized_as
from keras_cnv2.models.backbone import ConvNeXtV2Backbone
from keras_cnv2.models.classifier import ConvNeXtV2
from keras_cnv2.sizes import get_size

OUR_MODELS = {f"keras_cnv2>{model.__name__}": model for model in (ConvNeXtV2, ConvNeXtV2Backbone, FCMAE)}


def restore_model(weights, size=None, classifier_activation=None, any_size=False):
    """A model from its checkpoint alone.

    Of a `.keras` file, it is the model in the file: its activation, its preprocessing, its dtype, and the head that its
    author put on an encoder of this package. Of other files, which hold weights by their names, a model is built that
    has these weights.

    Args:
        weights: Path of a file, or tag or full name of a published checkpoint.
        size: Name of the size, where a tag leaves it open.
        classifier_activation: Activation of a classifier; by default the one its file names, else "softmax", of a
            single class "sigmoid".
        any_size: Bool, whether a classifier or backbone that was saved for one size of images shall take any.

    Returns:
        A classifier, with or without its last dense layer, a backbone, an FCMAE, or a model around one of these. A
        model that is built takes images of any size in 0..255, unless the file says that they are normalised; an FCMAE
        takes those of 7 x 7 patches.

    Raises:
        CheckpointError: If the checkpoint cannot be had or read, is not whole, or is a Keras model without a
            ConvNeXt V2, or with layers that this process does not know.
        FileNotFoundError: If it is a path without a file.
    """
    weights = fetch_weights(weights, size)
    with open_weights(weights) as contents:
        architecture = read_architecture(contents)
        if contents.config is None:
            model = _of_names(architecture, contents.metadata, classifier_activation)
            load_contents(model, contents)
            return model
        check_config(contents.config)
        if contents.config.get("registered_name") not in OUR_MODELS:
            is_keras_file = weights.path.suffix == ".keras"
            return _as_keras_loads_it(weights.path) if is_keras_file else _as_described(contents)
        model = _of_config(contents.config, architecture, classifier_activation, any_size)
        if quantized_as(model):  # whose weights have names of Keras's own
            return _as_keras_loads_it(weights.path)
        load_contents(model, contents)
    return model


def read_architecture(contents):
    """The `Architecture` of open contents, or a `CheckpointError` if they hold too little for it."""
    _, tensors, _ = translate(contents.tensors)
    architecture = architecture_of({path: tensor.shape_here for path, tensor in tensors.items()})
    # Half of a model's weights, more or less, are the first dense layers of its blocks. Without them in the file, its
    # model is not worth the memory: names and a few long vectors could claim a model of any size.
    claimed = sum(4 * depth * dim**2 for depth, dim in zip(architecture.depths, architecture.dims))
    held = sum(prod(shape_of(tensor.array)) for tensor in tensors.values())
    if claimed > held:
        raise CheckpointError(f"these weights are no whole ConvNeXt V2. Received: {held} numbers for {architecture}")
    return architecture


def _of_names(architecture, metadata, activation):
    """A new model for weights that came without a configuration."""
    common = {
        "depths": architecture.depths,
        "dims": architecture.dims,
        "input_shape": (None, None, architecture.channels),
        "stem_stride": architecture.stem_stride,
        "include_preprocessing": metadata.get("include_preprocessing", True),
    }
    with _clear_errors():
        if architecture.decoder_dim:
            return FCMAE(
                ConvNeXtV2Backbone(**common),
                image_size=7 * 8 * architecture.stem_stride,
                decoder_dim=architecture.decoder_dim,
                decoder_depth=architecture.decoder_depth,
            )
        if architecture.classes:
            saved = metadata.get("classifier_activation") or default_activation(architecture.classes)
            return ConvNeXtV2(**common, classes=architecture.classes, classifier_activation=activation or saved)
        if architecture.has_norm:
            return ConvNeXtV2(**common, include_top=False, pooling="avg")
        return ConvNeXtV2Backbone(**common, pyramid_norms=architecture.has_pyramid_norms)


def _of_config(saved, architecture, activation, any_size):
    """The model of this package that a `.keras` file's configuration describes, without its weights."""
    cls, config = OUR_MODELS[saved["registered_name"]], dict(saved["config"])
    with _clear_errors():
        # Before it is built: a configuration could claim a model of any size.
        claimed = _claimed(config["backbone"]["config"] if cls is FCMAE else config) | _claimed_decoder(config)
        held = {name: getattr(architecture, name) for name in claimed}
        if claimed != held:
            raise ValueError(f"The configuration and the weights are of different models. Received: {claimed}, {held}")
        if activation and config.get("include_top"):
            config["classifier_activation"] = activation
        return cls.from_config(_of_any_size(config) if any_size and cls is not FCMAE else config)


def _claimed(config):
    """What a classifier's or backbone's configuration says of its `Architecture`."""
    size = get_size(config["size"]) if config.get("size") else None
    depths, dims = (size.depths, size.dims) if size else (config["depths"], config["dims"])
    classes = {"classes": config["classes"]} if config.get("include_top") else {}
    return {"depths": tuple(depths), "dims": tuple(dims), "channels": config["input_shape"][-1], **classes}


def _claimed_decoder(config):
    return {name: config[name] for name in ("decoder_dim", "decoder_depth") if name in config}


def _of_any_size(config):
    """The configuration of a model for images of any size, which remembers the size that it was saved for."""
    height, width, channels = config["input_shape"]
    opened = {**config, "input_shape": (None, None, channels)}
    if "input" in config:
        opened["input"] = {**config["input"], "batch_shape": (None, None, None, channels)}
    if "image_size" in config and height == width:
        opened["image_size"] = config["image_size"] or height
    return opened


def _as_keras_loads_it(path):
    """The model of a `.keras` file whose configuration has been checked."""
    with _clear_errors():
        model = keras.saving.load_model(path, compile=False)
    weights = ((weight.path, keras.ops.convert_to_numpy(weight)) for weight in model.weights)
    tell_of_not_finite(model.name, [path for path, array in weights if not np.isfinite(array).all()])
    return model


def _as_described(contents):
    """The model that a checkpoint of training describes, whose configuration has been checked."""
    with _clear_errors():
        model = keras.saving.deserialize_keras_object(contents.config)
        claimed = [tuple(weight.shape) for weight in model.weights]
        held = [shape_of(tensor) for tensor in contents.tensors.values()]
        if claimed != held:
            raise ValueError("The configuration and the weights are of different models.")
        arrays = {path: np.asarray(tensor) for path, tensor in contents.tensors.items()}
        model.set_weights([*arrays.values()])
    tell_of_not_finite(model.name, [path for path, array in arrays.items() if not np.isfinite(array).all()])
    return model


@contextlib.contextmanager
def _clear_errors():
    try:
        yield
    except Exception as error:  # Keras has many kinds for a configuration that makes no sense
        raise CheckpointError(f"no model can be built for these weights. {str(error)[:1000]}") from error
