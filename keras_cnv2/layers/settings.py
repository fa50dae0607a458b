"""What is set on single layers after they are made: frozen or not, recomputed, quantized, with LoRA.

A layer's own configuration holds it. Models and blocks, which make their layers themselves, keep what differs from what
they make in their own configuration: `settings_of` is that entry, `restore_settings` sets it again.
"""

import keras

# The entry of a configuration. It is there where anything was set: older releases do not know it.
SETTINGS = "settings"

# What can be set on a layer before it is built.
FLAGS = ("trainable", "remat")

# What quantized layers have in their own configuration, and layers with LoRA.
QUANTIZATION = ("dtype", "quantization_config")
LORA = ("lora_rank", "lora_alpha")


def settings_of(parent, layers, pending=None):
    """What was set on layers, and on those inside of them.

    Args:
        parent: The layer or model that made the layers.
        layers: Those of its layers whose configuration it does not keep.
        pending: Settings that the layers will get when they are built.

    Returns:
        {"settings": {path of a layer: settings}}, or an empty dict if nothing was set. A path has the names of the
        layers from the parent down. A layer is as trainable as the one it is in where it is not said.
    """
    found = {path: {k: v for k, v in entry.items() if k not in FLAGS} for path, entry in (pending or {}).items()}
    for path, entry in _settings(parent, layers):
        found[path] = {**found.get(path, {}), **entry}
    found = {path: entry for path, entry in found.items() if entry}
    return {SETTINGS: found} if found else {}


def policy_at(policy, path):
    """The policy of the layer at a path: Keras's dense layers compute with a map of policies, and cannot be saved."""
    return policy[path] if isinstance(policy, keras.dtype_policies.DTypePolicyMap) else policy


def _settings(parent, layers, prefix=""):
    for layer in layers:
        yield prefix + layer.name, _set_on(layer, parent)
        yield from _settings(layer, _inner(layer), f"{prefix}{layer.name}/")


def _inner(layer):
    """The layers inside of a layer. A model inside of another is kept with its own configuration."""
    return [part for part in layer._layers if not isinstance(part, keras.Model)]


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
    """Sets on layers that are built what a configuration says of them.

    Args:
        layers: The layers.
        settings: The entry of the configuration, a dict.

    Raises:
        ValueError: If it names a layer that there is not.
    """
    restore_flags(layers, settings)  # first, as weights are made trainable or not; from the outside in
    restore_weights(layers, settings)


def restore_flags(layers, settings):
    """The part of `restore_settings` that layers take before they are built."""
    for layer, entry in _found(layers, settings):
        for name in FLAGS:
            if name in entry:
                setattr(layer, name, entry[name])


def restore_weights(layers, settings):
    """The other part: it changes which weights there are, in the order in which users do it."""
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
            return _find(layer._layers, path, names[1:]) if names[1:] else layer
    raise ValueError(f"{SETTINGS} must be of layers that there are. Received: {path!r}")


def _quantize(layer, entry):
    policy, config = keras.dtype_policies.get(entry["dtype"]), entry.get("quantization_config")
    options = {} if config is None else {"config": keras.saving.deserialize_keras_object(config)}
    layer.quantize(policy.quantization_mode, **options)
    layer.dtype_policy = policy
