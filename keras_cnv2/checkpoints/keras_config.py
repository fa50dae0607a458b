"""The configuration of a model in a `.keras` file: what may stand in it.

A configuration names classes and functions, which Keras looks up, some versions in any module that can be imported.
Here nothing but Keras's own layers and what is registered in this process is looked up.
"""

import keras

from keras_cnv2.errors import CheckpointError

# Where Keras's own parts of a model are.
MODULES = {
    "keras",
    *(f"keras.{name}" for name in ("layers", "models", "ops", "dtype_policies", "quantizers")),
    *(f"keras.{name}" for name in ("initializers", "regularizers", "constraints", "activations")),
    *(f"keras.{name}" for name in ("optimizers", "optimizers.schedules", "losses", "metrics")),
}
PRIVATE_MODULES = ("keras.src.models.", "keras.src.layers.", "keras.src.ops.")

# Layers that run code of the file's, or read other files.
UNSAFE = {
    *("Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"),
    *("StringLookup", "IntegerLookup", "TextVectorization"),
}

# Entries that Keras writes for values, rather than for classes.
VALUES = {"__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__", "__tuple__"}


def check_config(config):
    """Raises a `CheckpointError` if a configuration names anything but Keras's own layers and what is registered.

    Args:
        config: What a `.keras` file's config.json holds.
    """
    entries = [config]
    while entries:
        entry = entries.pop()
        if isinstance(entry, list):
            entries += entry
        elif isinstance(entry, dict):
            if "class_name" in entry and "config" in entry:
                _check(entry)
            # How the model was compiled is of no use here, and not looked up.
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
            "the model holds something that is not Keras's, and that this process does not know. Import what registers "
            "it (keras.saving.register_keras_serializable), and go on in Python. "
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
