"""Builds a model from its checkpoint alone."""

import contextlib
import os
from math import prod

import keras
import numpy as np

from keras_cnv2.checkpoints.architecture import architecture_of, stage_count
from keras_cnv2.checkpoints.keras_config import check_config
from keras_cnv2.checkpoints.load import load_contents, tell_of_not_finite
from keras_cnv2.checkpoints.metadata import default_activation
from keras_cnv2.checkpoints.source import fetch_weights, open_weights
from keras_cnv2.checkpoints.tensor import shape_of
from keras_cnv2.checkpoints.translate import translation_of
from keras_cnv2.errors import CheckpointError
from keras_cnv2.fcmae import FCMAE
from keras_cnv2.layers.quantized import quantized_as
from keras_cnv2.models.backbone import ConvNeXtV2Backbone
from keras_cnv2.models.classifier import ConvNeXtV2
from keras_cnv2.sizes import get_size

OUR_MODELS = {f"keras_cnv2>{model.__name__}": model for model in (ConvNeXtV2, ConvNeXtV2Backbone, FCMAE)}


def from_pretrained(source: str | os.PathLike) -> keras.Model:
    """Builds the model that a repository, a folder or a file describes, and loads its weights.

    It reads what transformers and timm write: config.json, preprocessor_config.json, and weights in one or several
    files, `.safetensors` or `.bin`. They settle the architecture, the classes and their names, the image size, how
    image files are resized, and the mean and deviation with which images are normalised: the model takes images in
    0..255. It also reads what `keras_cnv2.save_pretrained` writes, the folder of a training run, and any file that
    `keras_cnv2.load_checkpoint` reads. No code of a repository is run. The licence of a repository is logged.

    ```python
    model = keras_cnv2.from_pretrained("hf://owner/name")
    images = keras_cnv2.load_image("photo.jpg", model.image_size, model.resize)[None]
    probabilities = model.predict(images)  # (1, classes)
    ```

    Args:
        source: "hf://owner/name", optionally followed by "@" and a commit, tag or branch; or the path of a folder or a
            file; or the full name of published weights, as in `keras-cnv2 list`.

    Returns:
        A `keras_cnv2.ConvNeXtV2`, a `ConvNeXtV2Backbone`, an `FCMAE`, or a model around one of these from a `.keras`
        file.

    Raises:
        CheckpointError: If the source cannot be found, downloaded or read, its configuration is invalid or describes
            another model than its weights, or it is no ConvNeXt V2. It is a `ValueError`.
        FileNotFoundError: If `source` is a path without a file.
    """
    return restore_model(source)


def restore_model(weights, size=None, classifier_activation=None, any_size=False):
    """Builds a model from its checkpoint alone, and loads the weights.

    A `.keras` file and a checkpoint of a training run describe their model: its activation, preprocessing and dtype,
    and a head that its author put on an encoder of this package. This model is returned. Other files hold only weights
    and their names: from these the architecture is read, and a new model is built.

    Args:
        weights: Path of a file or a folder, a repository of the hub, or tag or full name of a published checkpoint.
        size: Name of the size, for a tag that several sizes have.
        classifier_activation: Activation of a classifier. By default the one that the file names, else "softmax", or
            "sigmoid" for a single class.
        any_size: Bool, whether a classifier or backbone that was saved with a fixed image size becomes one for images
            of any size.

    Returns:
        A classifier, with or without its last dense layer, a backbone, an FCMAE, or a model around one of these. A
        model that is built from weights and their names takes images of any size in 0..255, or normalised ones if the
        file says so; an FCMAE takes images of 7 x 7 patches.

    Raises:
        CheckpointError: If the checkpoint cannot be found, downloaded or read, is incomplete, is a Keras model without
            a ConvNeXt V2, or has layers that are not registered in this process.
        FileNotFoundError: If `weights` is a path without a file.
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
        if quantized_as(model):  # quantized layers have other weights, under Keras's own names
            return _as_keras_loads_it(weights.path)
        load_contents(model, contents)
    return model


def read_architecture(contents):
    """Returns the `Architecture` of open contents; raises a `CheckpointError` if they hold too few weights for it."""
    tensors = translation_of(contents).tensors
    shapes = {path: tensor.shape_here for path, tensor in tensors.items()}
    architecture = architecture_of(shapes, _stage_count(contents.config))
    # `claimed` counts the kernels of each block's first dense layer, about half of a model's weights. A file that holds
    # fewer numbers is rejected before a model is built: a few names and long vectors could claim any amount of memory.
    claimed = sum(4 * depth * dim**2 for depth, dim in zip(architecture.depths, architecture.dims))
    held = sum(prod(shape_of(tensor.array)) for tensor in tensors.values())
    if claimed > held:
        raise CheckpointError(
            f"these weights are an incomplete ConvNeXt V2. Received: {held} numbers for {architecture}"
        )
    return architecture


def _stage_count(config):
    """The number of stages of the model that a configuration describes; 4 for `None` and for what makes no sense."""
    try:
        arguments = config["config"]
        return min(max(stage_count(arguments.get("out_levels"), arguments.get("stem_stride")), 1), 4)
    except (AttributeError, KeyError, TypeError, ValueError):
        return 4


def _of_names(architecture, metadata, activation):
    """Builds a model for weights that come without a configuration."""
    common = {
        "depths": architecture.depths,
        "dims": architecture.dims,
        "input_shape": (None, None, architecture.channels),
        "stem_stride": architecture.stem_stride,
        "include_preprocessing": metadata.get("include_preprocessing", True),
        "mean": metadata.get("mean"),
        "std": metadata.get("std"),
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
            top = {"classes": architecture.classes, "classifier_activation": activation or saved}
            return ConvNeXtV2(**common, **top, norm_epsilon=metadata.get("norm_epsilon"))
        if architecture.has_norm:
            pooling = metadata.get("pooling", "avg")
            return ConvNeXtV2(**common, include_top=False, pooling=pooling, norm_epsilon=metadata.get("norm_epsilon"))
        levels = {name: metadata.get(name) for name in ("output_stride", "out_levels")}
        return ConvNeXtV2Backbone(**common, **levels, pyramid_norms=architecture.has_pyramid_norms)


def _of_config(saved, architecture, activation, any_size):
    """Builds the model of this package that a configuration describes, without loading its weights."""
    cls, config = OUR_MODELS[saved["registered_name"]], dict(saved["config"])
    with _clear_errors():
        # Checked before the model is built: a configuration could claim any amount of memory.
        claimed = _claimed(config["backbone"]["config"] if cls is FCMAE else config) | _claimed_decoder(config)
        held = {name: getattr(architecture, name) for name in claimed}
        if claimed != held:
            raise ValueError(
                f"The configuration and the weights belong to different models. Received: {claimed}, {held}"
            )
        if activation and config.get("include_top"):
            config["classifier_activation"] = activation
        return cls.from_config(_of_any_size(config) if any_size and cls is not FCMAE else config)


def _claimed(config):
    """The fields of `Architecture` that a classifier's or backbone's configuration gives, as a dict."""
    size = get_size(config["size"]) if config.get("size") else None
    depths, dims = (size.depths, size.dims) if size else (config["depths"], config["dims"])
    classes = {"classes": config["classes"]} if config.get("include_top") else {}
    stages = _stage_count({"config": config})
    return {
        "depths": tuple(depths[:stages]),
        "dims": tuple(dims[:stages]),
        "channels": config["input_shape"][-1],
        **classes,
    }


def _claimed_decoder(config):
    return {name: config[name] for name in ("decoder_dim", "decoder_depth") if name in config}


def _of_any_size(config):
    """Changes a configuration to images of any size; the saved size becomes the classifier's `image_size`."""
    height, width, channels = config["input_shape"]
    opened = {**config, "input_shape": (None, None, channels)}
    if "input" in config:
        opened["input"] = {**config["input"], "batch_shape": (None, None, None, channels)}
    if "image_size" in config and height == width:
        opened["image_size"] = config["image_size"] or height
    return opened


def _as_keras_loads_it(path):
    """Loads a `.keras` file with Keras; its configuration must have been checked."""
    with _clear_errors():
        model = keras.saving.load_model(path, compile=False)
    weights = ((weight.path, keras.ops.convert_to_numpy(weight)) for weight in model.weights)
    tell_of_not_finite(model.name, [path for path, array in weights if not np.isfinite(array).all()])
    return model


def _as_described(contents):
    """Builds the model that a checkpoint of training describes; its configuration must have been checked."""
    with _clear_errors():
        model = keras.saving.deserialize_keras_object(contents.config)
        claimed = [tuple(weight.shape) for weight in model.weights]
        held = [shape_of(tensor) for tensor in contents.tensors.values()]
        if claimed != held:
            raise ValueError("The configuration and the weights belong to different models.")
        arrays = {path: np.asarray(tensor) for path, tensor in contents.tensors.items()}
        model.set_weights([*arrays.values()])
    tell_of_not_finite(model.name, [path for path, array in arrays.items() if not np.isfinite(array).all()])
    return model


@contextlib.contextmanager
def _clear_errors():
    try:
        yield
    except Exception as error:  # Keras raises many kinds of errors for an invalid configuration
        raise CheckpointError(f"no model can be built for these weights. {str(error)[:1000]}") from error
