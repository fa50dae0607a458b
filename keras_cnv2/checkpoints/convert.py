"""Strict conversion between a model's weights and `{name: array}`, both ways."""

import contextlib
import logging
import os
import posixpath
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_cnv2.checkpoints import names
from keras_cnv2.checkpoints.architecture import architecture_of
from keras_cnv2.checkpoints.encoder_within import absent_levels, is_around_encoder, without_surroundings
from keras_cnv2.checkpoints.metadata import adopt_metadata
from keras_cnv2.checkpoints.names import part_of
from keras_cnv2.checkpoints.read import Contents, open_checkpoint
from keras_cnv2.errors import CheckpointError
from keras_cnv2.layers.quantized import quantized_as
from keras_cnv2.sizes import size_of

logger = logging.getLogger(__name__)

STEM = "stem_conv/kernel"
NAMINGS = ("official", "timm", "transformers")
# In these sizes, timm has 1x1 convolutions in place of the linear layers of the blocks.
CONV_MLP_SIZES = ("atto", "femto", "pico", "nano")
# Maximum number of names that a log line shows.
SHOWN = 5
FLOATS = ("float16", "bfloat16", "float32", "float64")


class Tensor(NamedTuple):
    """One tensor of a checkpoint: its name in the checkpoint, its layout, and the array (NumPy or lazy)."""

    name: str
    layout: names.Layout
    array: Any

    @property
    def shape_here(self):
        return self.layout.shape_here(shape_of(self.array))


def load_checkpoint(model: keras.Model, source: str | os.PathLike | Mapping[str, Any]) -> None:
    """Loads weights into a classifier, a backbone or an FCMAE, all or nothing.

    The naming is detected: that of the official code (its dense models, and its pre-training checkpoints with sparse
    or dense kernels), of timm, of transformers, or of a Keras file. Every tensor of the source is used and every
    weight of the model is set, with three exceptions, each reported in one log line:

    - Parts that the model does not have are left out as a whole: a classifier's norm and head, a pyramid's norms,
      FCMAE's decoder, and, in a Keras file of a segmenter, a detector or a model of your own, all layers around the
      encoder. The level is INFO, that of the other two is WARNING.
    - Parts that the source does not have keep their initial values as a whole: the decoder, a pyramid's norms, or the
      final norm and head.
    - The kernel of a stem for three channels is summed for a model of one channel, and repeated and scaled down for
      any other number of channels, as in timm.

    In layers with LoRA, the kernel is set and the LoRA update is reset to zero.

    A classifier without class names, image size or way to resize gets those that the file carries. Weights that hold
    NaN or infinities are loaded, with a warning that counts and names them.

    Args:
        model: A built Keras model with the layer names of this package, not quantized.
        source: The path of a `.safetensors`, `.pt`, `.pth`, `.bin`, `.keras` or `.weights.h5` file, or a mapping from
            names to float arrays. No code in a file is run.

    Raises:
        CheckpointError: If the file cannot be read, or any tensor is missing, left over, of another shape or not
            floating point. It is a `ValueError`. The message lists all of these, and the model stays unchanged.
        FileNotFoundError: If the source is a path without a file.
    """
    with opened(source) as contents:
        load_contents(model, contents)


@contextlib.contextmanager
def opened(source):
    """Opens a path or a mapping as `Contents`."""
    if isinstance(source, Mapping):
        yield Contents(source)
    else:
        with open_checkpoint(source) as contents:
            yield contents


def load_contents(model, contents, other_classes=False):
    """Does the work of `load_checkpoint`, from open contents.

    Args:
        model: The model.
        contents: `Contents`.
        other_classes: Bool, whether the model may have another number of classes than the checkpoint. Its head then
            keeps its initial values.

    Raises:
        CheckpointError: If the weights do not fit the model.
    """
    variables = _variables(model)
    dialect, tensors, left_over = translate(contents.tensors)
    surroundings, absent = [], []
    if left_over and is_around_encoder(contents.config):
        (tensors, surroundings), left_over = without_surroundings(tensors, left_over), []
        absent = absent_levels(variables, tensors)
        variables = {path: variable for path, variable in variables.items() if posixpath.dirname(path) not in absent}
    fresh, dropped = _parts(variables, tensors, other_classes)
    variables = {path: variable for path, variable in variables.items() if part_of(path) not in fresh}
    tensors = {path: tensor for path, tensor in tensors.items() if part_of(path) not in dropped}
    metadata = {k: v for k, v in contents.metadata.items() if k != "class_names" or "head/bias" in variables}

    problems = [f"missing: {dialect.name_of(path)[0]}" for path in variables if path not in tensors]
    problems += [f"left over: {name}" for name in left_over]
    problems += [f"left over: {tensor.name}" for path, tensor in tensors.items() if path not in variables]
    for path in variables.keys() & tensors.keys():
        problems += _misfits(path, tensors[path], variables[path])
    if "class_names" in metadata and len(metadata["class_names"]) != variables["head/bias"].shape[0]:
        problems.append(f"metadata: {len(metadata['class_names'])} class_names for another number of classes")
    if problems:
        raise CheckpointError(
            f"The checkpoint ({dialect.name} naming) does not fit {model.name!r}, nothing was loaded. "
            f"{_advice(variables, tensors)}Received {len(problems)} misfits:\n  " + "\n  ".join(sorted(problems))
        )
    adapted = _other_channels(STEM, tensors[STEM], variables[STEM].shape)
    not_finite = _assign(variables, tensors)
    _forget_lora(model, variables)
    adopt_metadata(model, metadata)
    tell_of_not_finite(model.name, not_finite)
    if fresh := [*fresh, *absent]:
        logger.warning("%s: not taken from the checkpoint, keeps its initial values: %s", model.name, ", ".join(fresh))
    if left_out := [*dropped, *surroundings]:
        logger.info("%s: in the checkpoint, left out: %s", model.name, ", ".join(left_out))
    if adapted:
        logger.warning("%s: the stem's kernel was adapted to %d channels", model.name, variables[STEM].shape[2])


def state_dict(model: keras.Model, naming: str = "official") -> dict[str, np.ndarray]:
    """Returns the model's weights with the names and layouts of a PyTorch implementation.

    Args:
        model: A classifier, backbone or FCMAE; or a model of your own on an encoder of this package, of which only the
            encoder is taken, and a log line names the layers that are left out.
        naming: "official", the names of facebookresearch/ConvNeXt-V2 (FCMAE's encoder has the prefix "encoder.");
            "timm", which has 1x1 convolutions in atto to nano; or "transformers". The last two have no names for
            FCMAE's decoder, and "timm" has none for a pyramid's norms: these are left out, and a log line says so. In
            "transformers", a backbone with pyramid norms has the names of a `ConvNextV2Backbone`.

    Returns:
        Dict from names to NumPy arrays in PyTorch's layout; `load_checkpoint` takes it. LoRA updates are added to the
        kernels.

    Raises:
        ValueError: If the naming is unknown, the model is quantized, or it does not hold exactly one encoder of this
            package.
    """
    return named_arrays(*with_names(model), naming)


def named_arrays(model, variables, naming):
    """Does the work of `state_dict`, from the values that `with_names` returns."""
    updates = _lora_updates(model)
    dialect = _dialect(naming, variables)
    translated = {path: dialect.name_of(path) for path in variables}
    dropped = sorted({part_of(path) for path, found in translated.items() if found is None})
    if dropped:
        logger.warning("%s: has no names in %s, left out: %s", model.name, naming, ", ".join(dropped))

    def values(path):
        array, update = keras.ops.convert_to_numpy(variables[path]), updates.get(id(variables[path]))
        return array if update is None else array + update

    return {
        found[0]: np.ascontiguousarray(found[1].to_there(values(path))) for path, found in translated.items() if found
    }


def with_names(model):
    """Finds the part of a model whose weights have names in checkpoints.

    Returns:
        A model, and its weights as a dict from Keras paths to variables. The model is `model` itself for a classifier,
        a backbone or an FCMAE, and the encoder in any other model. If that encoder is no model of its own but layers of
        `model`, it is `model` with the weights of the encoder only.

    Raises:
        ValueError: As in `state_dict`.
    """
    encoders = [part for part in model._flatten_layers() if isinstance(part, keras.Model) and _has_stem(part)]
    if len(encoders) != 1 or not _unnamed(model):
        return model, _variables(model)
    (encoder,) = encoders
    variables = _variables(encoder) if encoder is not model else _variables_of_layers(model)
    written = {*map(id, variables.values())}
    left_out = sorted({posixpath.dirname(v.path) for v in _weights(model) if id(v) not in written})
    logger.warning("%s: only the encoder has names in checkpoints, left out: %s", model.name, ", ".join(left_out))
    return encoder, variables


def _variables_of_layers(model):
    """The encoder's weights, by Keras path, in a functional model that holds its layers next to a head of the user."""
    unnamed = {*_unnamed(model)}
    named = {variable.path: variable for variable in _weights(model) if variable.path not in unnamed}
    if {*map(posixpath.dirname, named)} & {*map(posixpath.dirname, unnamed)}:
        return _variables(model)  # raises an error: a layer of this package has weights that are not of this package
    # "norm" and "head" are left out: the user's own layers may have these names.
    return {path: variable for path, variable in named.items() if part_of(path) not in ("norm", "head")}


def _has_stem(model):
    return any(f"{layer.name}/kernel" == STEM for layer in model.layers)


def _unnamed(model):
    """The paths of the weights that have no name in checkpoints."""
    outer = _outer_path(model)
    paths = [variable.path for variable in _weights(model)]
    return [path for path in paths if names.OFFICIAL.name_of(path.removeprefix(outer)) is None]


def translate(tensors):
    """Detects the dialect of a dict from names to arrays, and translates the names.

    Returns:
        The dialect; a dict from Keras paths to `Tensor`; a list of the names that the dialect does not know.

    Raises:
        CheckpointError: If no name belongs to any dialect.
    """
    are_names = all(isinstance(name, str) for name in tensors)
    dialect = names.detect({name: shape_of(array) for name, array in tensors.items()}) if are_names else None
    if dialect is None:
        raise CheckpointError(
            "These weights are of no ConvNeXt V2 that is known here, nothing was loaded. "
            f"Received: {len(tensors)} tensors called {[*tensors][:5]}"
        )
    found = {name: dialect.path_of(name) for name in tensors}
    translated = {place[0]: Tensor(name, place[1], tensors[name]) for name, place in found.items() if place}
    return dialect, translated, [name for name, place in found.items() if place is None]


def shape_of(array):
    """The shape of an array, tensor, lazy array or nested list; lazy arrays are not read."""
    return tuple(array.shape) if hasattr(array, "shape") else np.shape(array)


def _variables(model):
    """The model's weights by Keras path."""
    outer = _outer_path(model)
    variables = {variable.path.removeprefix(outer): variable for variable in _weights(model)}
    unknown = [outer + path for path in variables if names.OFFICIAL.name_of(path) is None]
    if unknown or not variables:
        _check_not_quantized(model)
        raise ValueError(
            "Only models made of this package's layers, under their names, have checkpoints. "
            f"Received: model={model.name!r} with weights {unknown[:5]}"
        )
    if len(variables) < len(_weights(model)):
        raise ValueError(
            "Checkpoints hold one encoder: give that of the model that is meant. "
            f"Received: model={model.name!r} with several weights of one name"
        )
    return variables


def _outer_path(model):
    """The common prefix of the weights' paths: the layers in whose `build` the model was made. It ends in "/"."""
    paths = [variable.path for variable in _weights(model)]
    layers = {posixpath.dirname(path) for path in paths}
    if all(map(names.OFFICIAL.name_of, paths)) or len(layers) < 2:
        return ""
    common = posixpath.commonpath(layers)
    return f"{common}/" if common else ""


def _weights(model):
    """The model's weights without those of LoRA."""
    return [v for v in model.weights if not posixpath.basename(v.path).startswith("lora_kernel_")]


def _lora_updates(model):
    """The updates that LoRA adds to kernels, as a dict from the ids of the kernels to arrays.

    The property `kernel` of a layer includes the update, but rounded if the layer computes in half precision.
    """
    updates = {}
    for layer in _layers_with_lora(model):
        dtype = keras.backend.result_type(layer._kernel.dtype, "float32")
        a, b = (keras.ops.cast(weight, dtype) for weight in (layer.lora_kernel_a, layer.lora_kernel_b))
        update = layer.lora_alpha / layer.lora_rank * keras.ops.matmul(a, b)
        update = keras.ops.cast(update, layer._kernel.dtype)
        updates[id(layer._kernel)] = keras.ops.convert_to_numpy(update)
    return updates


def _layers_with_lora(model):
    return [layer for layer in model._flatten_layers() if getattr(layer, "lora_enabled", False)]


def _check_not_quantized(model):
    """Raises a `ValueError` for a quantized model: its weights are not those that checkpoints hold."""
    if modes := quantized_as(model):
        raise ValueError(
            "Quantized models are neither filled from checkpoints nor written to them: load or write the weights "
            f"first, and quantize then. Received: model={model.name!r}, quantized as {', '.join(modes)}"
        )


def _dialect(naming, variables):
    """The dialect in which to write these weights."""
    if naming not in NAMINGS:
        raise ValueError(f"naming must be one of {NAMINGS}. Received: naming={naming!r}")
    architecture = architecture_of({path: tuple(variable.shape) for path, variable in variables.items()})
    if naming == "official":
        return names.OFFICIAL_FCMAE if architecture.decoder_dim else names.OFFICIAL
    if naming == "transformers":
        return names.TRANSFORMERS_BARE if architecture.has_pyramid_norms else names.TRANSFORMERS
    conv_mlp = size_of(architecture.depths, architecture.dims) in CONV_MLP_SIZES
    return names.TIMM_CONV_MLP if conv_mlp else names.TIMM


def _parts(variables, tensors, other_classes):
    """Two lists: the parts that keep their initial values, and the parts of the checkpoint that are left out."""
    ours, theirs = ({part_of(path) for path in paths} for paths in (variables, tensors))
    fresh, dropped = ours - theirs - {"encoder"}, theirs - ours - {"encoder"}
    if "head" in theirs:
        fresh.discard("norm")  # no valid file has a head without its norm: report it as missing
    head = "head/kernel"
    both_have_it = head in variables and head in tensors
    if other_classes and both_have_it and tensors[head].shape_here != tuple(variables[head].shape):
        fresh, dropped = fresh | {"head"}, dropped | {"head"}
    return sorted(fresh), sorted(dropped)


def _advice(variables, tensors):
    """A sentence for the error message: the likely reason why a checkpoint does not fit."""
    head = "head/bias"
    if head in variables and head in tensors and (there := shape_of(tensors[head].array)) != variables[head].shape:
        return f"The head is one of {there[0] if there else 'no'} classes, the model's of {variables[head].shape[0]}. "
    theirs = _told_architecture({path: tensor.shape_here for path, tensor in tensors.items()})
    ours = _told_architecture({path: tuple(variable.shape) for path, variable in variables.items()})
    known = theirs and ours and theirs != ours
    return "Check size, channels and stem" + (f": the file has {theirs}, the model {ours}. " if known else ". ")


def _told_architecture(shapes):
    """The architecture of weights with these shapes, in words for a message; `None` if it cannot be derived."""
    try:
        found = architecture_of(shapes)
    except CheckpointError:
        return None
    depths, dims = (",".join(map(str, values)) for values in (found.depths, found.dims))
    return f"depths {depths}, dims {dims}, stem_stride {found.stem_stride} and {found.channels} channels"


def _misfits(path, tensor, variable):
    """A list of messages about what does not fit in one tensor."""
    expected, received = tensor.layout.shape_there(variable.shape), shape_of(tensor.array)
    if received != expected and not _other_channels(path, tensor, variable.shape):
        return [f"shape: {tensor.name} is {received}, expected {expected}"]
    dtype = str(getattr(tensor.array, "dtype", None) or np.asarray(tensor.array).dtype).removeprefix("torch.")
    return [] if dtype in FLOATS else [f"dtype: {tensor.name} is {dtype}, expected floating point"]


def _other_channels(path, tensor, shape):
    """Whether the tensor is a stem kernel for RGB, and the model's stem has another number of channels."""
    if path != STEM or tensor.shape_here is None:
        return False
    height, width, channels, dim = tensor.shape_here
    return channels == 3 != shape[2] and (height, width, dim) == (*shape[:2], shape[3])


def _assign(variables, tensors):
    """Sets the variables; returns the names of the tensors that hold NaN or infinities.

    All arrays are read before any variable is set, since reading may show that the file is damaged.
    """
    arrays = {path: _array(tensors[path].array) for path in variables}
    not_finite = []
    for path, variable in variables.items():
        array = np.asarray(arrays.pop(path), dtype=keras.backend.result_type(variable.dtype, "float32"))
        if not np.isfinite(array).all():
            not_finite.append(tensors[path].name)
        variable.assign(_here(path, tensors[path], array, tuple(variable.shape)))
    return not_finite


def tell_of_not_finite(model_name, names):
    """Logs a warning if weights hold NaN or infinities. This is no error: the user decides whether to use them."""
    if names:
        more = ", ..." if len(names) > SHOWN else ""
        logger.warning(
            "%s: %d tensors hold NaN or infinities, so that outputs will, too: %s%s",
            *(model_name, len(names), ", ".join(names[:SHOWN]), more),
        )


def _forget_lora(model, variables):
    """Resets LoRA for the kernels that were set: it adds nothing to them, as in a new layer."""
    kernels = {id(variable) for variable in variables.values()}
    for layer in _layers_with_lora(model):
        if id(layer._kernel) in kernels:
            layer.lora_kernel_b.assign(keras.ops.zeros(layer.lora_kernel_b.shape))


def _array(values):
    """Converts an array, a lazy array or a PyTorch tensor to NumPy. PyTorch cannot convert bfloat16 or GPU tensors."""
    return np.asarray(values.detach().cpu().float() if hasattr(values, "detach") else values)


def _here(path, tensor, array, shape):
    """Returns the array in the layout and shape of the model's variable; adapts a stem kernel to other channels."""
    if not _other_channels(path, tensor, shape):
        return tensor.layout.to_here(array, shape)
    kernel, channels = tensor.layout.to_here(array, tensor.shape_here), shape[2]
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    return kernel[:, :, np.arange(channels) % 3] * (3 / channels)
