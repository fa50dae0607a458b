"""Settings of single layers that users change after the layers are created: trainable, remat, quantization and LoRA.

The configuration of a layer holds its settings. Models and blocks create their inner layers themselves, so they store
only the settings that differ from those of new layers. `settings_of` returns this entry of their configuration, and
`restore_settings` applies it to a new model.
"""

import keras

from keras_cnv2.keras_internals import direct_layers

# The name of the entry. It is only written if a setting was changed, since older releases do not know it.
SETTINGS = "settings"

# Settings that a layer takes before it is built.
FLAGS = ("trainable", "remat")

# Entries of the configuration of quantized layers, and of layers with LoRA.
QUANTIZATION = ("dtype", "quantization_config")
LORA = ("lora_rank", "lora_alpha")


def settings_of(parent, layers, pending=None):
    """Returns the changed settings of layers and of the layers inside of them.

    Args:
        parent: The layer or model that created the layers.
        layers: The layers of `parent` whose configuration it does not store.
        pending: Settings that the layers will get when they are built.

    Returns:
        {"settings": {path of a layer: settings}}, or an empty dict if no setting was changed. A path consists of the
        names of the layers from `parent` downwards. Without an entry, a layer is as trainable as its parent.
    """
    found = {path: {k: v for k, v in entry.items() if k not in FLAGS} for path, entry in (pending or {}).items()}
    for path, entry in _settings(parent, layers):
        found[path] = {**found.get(path, {}), **entry}
    found = {path: entry for path, entry in found.items() if entry}
    return {SETTINGS: found} if found else {}


def policy_at(policy, path):
    """The policy of the layer at a path. Keras's dense layers accept a map of policies, but then cannot be saved."""
    return policy[path] if isinstance(policy, keras.dtype_policies.DTypePolicyMap) else policy


def _settings(parent, layers, prefix=""):
    for layer in layers:
        yield prefix + layer.name, _set_on(layer, parent)
        yield from _settings(layer, _inner(layer), f"{prefix}{layer.name}/")


def _inner(layer):
    """The layers inside of a layer. Nested models are left out, since they have a configuration of their own."""
    return [part for part in direct_layers(layer) if not isinstance(part, keras.Model)]


def _set_on(layer, parent):
    settings = {}
    if layer.trainable != parent.trainable:
        settings["trainable"] = layer.trainable
    if getattr(layer, "remat", False):
        settings["remat"] = True
    quantization = QUANTIZATION if layer.quantization_mode else ()
    lora = LORA if getattr(layer, "lora_enabled", False) else ()
    if quantization or lora:
        config = layer.get_config()
        settings |= {name: config[name] for name in (*quantization, *lora) if config.get(name) is not None}
    return settings


def restore_settings(layers, settings):
    """Applies the settings of a configuration to built layers.

    Args:
        layers: The layers.
        settings: The entry of the configuration, a dict.

    Raises:
        ValueError: If it names a layer that does not exist.
    """
    # Flags first: quantization and LoRA create weights, which are then trainable or not. The entries of outer layers
    # come before those of inner ones, since setting `trainable` also sets it on all inner layers.
    restore_flags(layers, settings)
    restore_weights(layers, settings)


def restore_flags(layers, settings):
    """Applies the settings that layers take before they are built: the first part of `restore_settings`."""
    for layer, entry in _found(layers, settings):
        for name in FLAGS:
            if name in entry:
                setattr(layer, name, entry[name])


def restore_weights(layers, settings):
    """Applies quantization, then LoRA, which change the weights of a layer: the second part of `restore_settings`."""
    for layer, entry in _found(layers, settings):
        if "dtype" in entry and not layer.quantization_mode:
            _quantize(layer, entry)
        if "lora_rank" in entry and not layer.lora_enabled:
            layer.enable_lora(entry["lora_rank"], lora_alpha=entry["lora_alpha"])


def _found(layers, settings):
    return [(_find(layers, path, path.split("/")), entry) for path, entry in settings.items()]


def _find(layers, path, names):
    for layer in layers:
        if layer.name == names[0]:
            return _find(direct_layers(layer), path, names[1:]) if names[1:] else layer
    raise ValueError(f"{SETTINGS} must name layers that exist. Received: {path!r}")


def _quantize(layer, entry):
    policy, config = keras.dtype_policies.get(entry["dtype"]), entry.get("quantization_config")
    options = {} if config is None else {"config": keras.saving.deserialize_keras_object(config)}
    layer.quantize(policy.quantization_mode, **options)
    layer.dtype_policy = policy
