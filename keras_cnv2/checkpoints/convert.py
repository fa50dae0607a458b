"""Strict conversion between a model's weights and `{name: array}`, both ways."""

import logging
from collections.abc import Mapping

import keras
import numpy as np

from keras_cnv2.checkpoints.names import official_name, part_of, path_in_model
from keras_cnv2.checkpoints.read import read

logger = logging.getLogger(__name__)

# What the official pre-training code puts before the names of its encoder.
ENCODER = "encoder."


def load_checkpoint(model, source):
    """Loads weights into a classifier, a backbone or an FCMAE, all or nothing.

    Every tensor of the source is used and every weight of the model is set, with two exceptions, each told in one log
    line: parts the model does not have are left out as a whole (a classifier's norm and head, FCMAE's decoder), and
    parts the source does not have keep their initial values as a whole (the decoder, or the final norm and head).

    Args:
        model: A built Keras model with the layer names of this package.
        source: The path of a `.keras` or `.weights.h5` file, or a mapping of official PyTorch names to float arrays
            in PyTorch's layout: the dense names, for FCMAE's encoder with or without the prefix "encoder.", and
            "proj", "mask_token", "decoder.0", "pred" for its decoder.

    Raises:
        ValueError: If anything is missing, left over, of another shape or not floating point. The message lists all
            of it, and the model is left as it was.
        FileNotFoundError: If the source is a path without a file.
    """
    wanted = _weights(model)
    tensors = _from_official(source) if isinstance(source, Mapping) else _from_keras(read(source))
    fresh, dropped = _parts(wanted, tensors)
    wanted = {name: weight for name, weight in wanted.items() if part_of(name) not in fresh}
    tensors = {name: tensor for name, tensor in tensors.items() if part_of(name) not in dropped}

    problems = [f"missing: {name}" for name in wanted if name not in tensors]
    problems += [f"left over: {name}" for name in tensors if name not in wanted]
    for name in wanted.keys() & tensors.keys():
        problems += _misfits(name, tensors[name], *wanted[name])
    if problems:
        raise ValueError(
            f"The checkpoint does not fit {model.name!r}, nothing was loaded. Check size, classes, channels and stem. "
            f"Received {len(problems)} misfits:\n  " + "\n  ".join(sorted(problems))
        )
    for name, (variable, layout) in wanted.items():
        tensor = np.asarray(tensors[name], dtype=keras.backend.result_type(variable.dtype, "float32"))
        variable.assign(layout.to_keras(tensor, variable.shape))
    if fresh:
        logger.warning("%s: not in the checkpoint, keeps its initial values: %s", model.name, ", ".join(fresh))
    if dropped:
        logger.info("%s: in the checkpoint, left out: %s", model.name, ", ".join(dropped))


def state_dict(model, naming="official"):
    """The model's weights as PyTorch users know them.

    Args:
        model: A classifier, backbone or FCMAE.
        naming: "official", the names of facebookresearch/ConvNeXt-V2; FCMAE's encoder has the prefix "encoder.".

    Returns:
        Dict from names to NumPy arrays in PyTorch's layout; `load_checkpoint` takes it.

    Raises:
        ValueError: If the naming is unknown or the model has weights without an official name.
    """
    if naming != "official":
        raise ValueError(f'naming must be "official". Received: naming={naming!r}')
    weights = _weights(model)
    prefix = ENCODER if any(part_of(name) == "decoder" for name in weights) else ""
    return {
        (prefix if part_of(name) == "encoder" else "") + name: layout.to_torch(keras.ops.convert_to_numpy(variable))
        for name, (variable, layout) in weights.items()
    }


def _weights(model):
    """The model's weights: official name -> (variable, layout)."""
    found = {variable.path: official_name(variable.path) for variable in model.weights}
    unknown = [path for path, name in found.items() if name is None]
    if unknown or not found:
        raise ValueError(
            "Only models made of this package's layers, under their names, have checkpoints. "
            f"Received: model={model.name!r} with weights {unknown[:5]}"
        )
    return {found[v.path][0]: (v, found[v.path][1]) for v in model.weights}


def _from_official(tensors):
    """Takes the prefix of the encoder away, so that every checkpoint has the same names."""
    twice = [name for name in tensors if ENCODER + name in tensors]
    if twice:
        raise ValueError(f'The checkpoint has tensors both with and without "{ENCODER}". Received: {twice}')
    return {name.removeprefix(ENCODER): tensor for name, tensor in tensors.items()}


def _from_keras(tensors):
    """Gives the contents of a Keras file their official names and layout; what is unknown keeps its name."""
    official = {}
    for key, tensor in tensors.items():
        path = path_in_model(key)
        name, layout = official_name(path) if path else (key, None)
        official[name] = layout.to_torch(tensor) if layout and tensor.ndim == len(layout.axes) else tensor
    return official


def _parts(wanted, tensors):
    """The parts that start fresh and the parts that are left out, as two lists."""
    ours, theirs = ({part_of(name) for name in names} for names in (wanted, tensors))
    fresh = sorted(ours - theirs - {"encoder"})
    if "norm" in fresh and "head" in theirs:
        fresh.remove("norm")  # No file has a head without its norm: report it as missing.
    return fresh, sorted(theirs - ours - {"encoder"})


def _misfits(name, tensor, variable, layout):
    """What is wrong with one tensor, as a list of messages."""
    expected, received = layout.torch_shape(variable.shape), tuple(np.shape(tensor))
    if received != expected:
        return [f"shape: {name} is {received}, expected {expected}"]
    dtype = keras.backend.standardize_dtype(getattr(tensor, "dtype", None) or np.asarray(tensor).dtype)
    return [] if keras.backend.is_float_dtype(dtype) else [f"dtype: {name} is {dtype}, expected floating point"]
