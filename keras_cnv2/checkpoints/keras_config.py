"""Checks the configuration of a model in a `.keras` file before Keras uses it.

A configuration names classes and functions. Keras looks them up, and some versions import any module for this. Only
Keras's own layers, and objects that are registered in this process, are allowed here.
"""

import keras

from keras_cnv2.errors import CheckpointError

# The modules of Keras's own classes and functions.
MODULES = {
    "keras",
    *(f"keras.{name}" for name in ("layers", "models", "ops", "dtype_policies", "quantizers")),
    *(f"keras.{name}" for name in ("initializers", "regularizers", "constraints", "activations")),
    *(f"keras.{name}" for name in ("optimizers", "optimizers.schedules", "losses", "metrics")),
}
PRIVATE_MODULES = ("keras.src.models.", "keras.src.layers.", "keras.src.ops.")

# Layers that run code from the file, or read other files.
UNSAFE = {
    *("Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"),
    *("StringLookup", "IntegerLookup", "TextVectorization"),
}

# Class names that Keras writes for values, such as tuples and arrays.
VALUES = {"__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__", "__tuple__"}


def check_config(config):
    """Raises a `CheckpointError` if a configuration names anything but Keras's own layers and registered objects.

    Args:
        config: The content of a `.keras` file's config.json.
    """
    entries = [config]
    while entries:
        entry = entries.pop()
        if isinstance(entry, list):
            entries += entry
        elif isinstance(entry, dict):
            if "class_name" in entry and "config" in entry:
                _check(entry)
            # The compile configuration is not used here, so it is not checked.
            entries += [value for name, value in entry.items() if entry is not config or name != "compile_config"]


def _check(entry):
    name, module, registered_name = (entry.get(key) for key in ("class_name", "module", "registered_name"))
    if not isinstance(name, str):
        known = False
    elif name == "function":
        name = entry["config"]
        known = _is_registered(name) or (module in ("builtins", "keras.activations") and _is_activation(name))
    else:
        known = name in VALUES or _is_registered(registered_name) or _is_of_keras(name, module)
    if not known:
        raise CheckpointError(
            "the model contains a class or function that is neither Keras's own nor registered in this process. In "
            "Python, first import the module that registers it (keras.saving.register_keras_serializable). "
            f"Received: {str(registered_name or name)[:100]!r} of module {str(module)[:100]!r}"
        )


def _is_registered(name):
    return isinstance(name, str) and keras.saving.get_registered_object(name) is not None


def _is_activation(name):
    try:
        return isinstance(name, str) and callable(keras.activations.get(name))
    except ValueError:
        return False


def _is_of_keras(name, module):
    if not isinstance(module, str) or not name.isidentifier() or name in UNSAFE:
        return False
    return module in MODULES or module.startswith(PRIVATE_MODULES)
