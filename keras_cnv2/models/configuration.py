"""The configuration (`get_config`) of classifiers and backbones, and how a model is built from it."""

import keras

from keras_cnv2.layers.settings import SETTINGS, restore_settings, settings_of
from keras_cnv2.models.stages import INPUT


def architecture_config(model):
    """Returns the part of `get_config` that classifier and backbone have in common.

    Raises:
        ValueError: If the model was built on an `input_tensor` that is the output of other layers: these layers are
            not part of the configuration.
    """
    images = model.input
    if not isinstance(images, keras.KerasTensor) or model.images is not images:
        raise ValueError(
            "This model was built on an input_tensor that comes out of other layers, which its configuration cannot "
            "hold. Save keras.Model(model.input, model.output) instead: it holds all layers. "
            f"Received: model={model.name!r}"
        )
    return {
        "name": model.name,
        **layers_config(model),
        "include_preprocessing": model.include_preprocessing,
        "mean": model.mean,
        "std": model.std,
        "input_shape": tuple(images.shape[1:]),
        "stem_stride": model.stem_stride,
        "drop_path_rate": model.drop_path_rate,
        "dtype": keras.dtype_policies.serialize(model.dtype_policy),
        **_input_config(images),
        **origin_config(model),
    }


def origin_config(model):
    """Returns the entry "pretrained", see `keras_cnv2.checkpoints.metadata`; an empty dict for other weights."""
    origin = getattr(model, "pretrained", None)
    return {"pretrained": dict(origin)} if origin else {}


def _input_config(images):
    """Returns an entry "input" with name, dtype and batch shape; an empty dict if they are those of `make_input`."""
    found = {"name": images.name, "dtype": images.dtype, "batch_shape": tuple(images.shape)}
    ours = {"name": INPUT, "dtype": "float32", "batch_shape": (None, *images.shape[1:])}
    return {} if found == ours else {"input": found}


def layers_config(model):
    """Returns whether a model is trainable, and the settings that were changed on its layers after it was built."""
    layers = [layer for layer in model.layers if not isinstance(layer, keras.Model)]  # models have their own entries
    return {"trainable": model.trainable, **settings_of(model, layers)}


def from_architecture_config(cls, config, custom_objects=None):
    """Builds a model of class `cls` from its `get_config`."""
    given = dict(config)
    trainable, settings = given.pop("trainable", True), _pop_settings(given)
    if "input" in given:
        given |= {"input_shape": None, "input_tensor": keras.Input(**given.pop("input"))}
    pretrained = given.pop("pretrained", None)
    with keras.saving.CustomObjectScope(custom_objects or {}):
        model = cls(**given)
        if not trainable:  # `trainable = True` must not be set: it would unfreeze layers of a nested model
            model.trainable = False
        restore_settings(model.layers, settings)
    if pretrained:
        model.pretrained = pretrained
    return model


def _pop_settings(config):
    """Removes and returns the settings of single layers. Older files have two lists of layer names instead."""
    settings = {name: {"trainable": False} for name in config.pop("frozen", ())}
    for name in config.pop("remat", ()):
        settings.setdefault(name, {})["remat"] = True
    return settings | config.pop(SETTINGS, {})


def from_nested_config(cls, config, names, custom_objects=None):
    """Does the same as `from_architecture_config`, for a `config` whose entries in `names` are serialized models."""
    parts = {name: keras.saving.deserialize_keras_object(config[name], custom_objects=custom_objects) for name in names}
    return from_architecture_config(cls, {**config, **parts}, custom_objects)
