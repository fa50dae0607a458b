"""Strict loading of weights into a model."""

import contextlib
import logging
import os
import posixpath
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_cnv2.checkpoints.architecture import architecture_of
from keras_cnv2.checkpoints.encoder_within import (
    absent_levels,
    has_surroundings,
    is_around_encoder,
    without_surroundings,
)
from keras_cnv2.checkpoints.metadata import adopt_metadata
from keras_cnv2.checkpoints.names import part_of, stage_of
from keras_cnv2.checkpoints.read import Contents, open_checkpoint
from keras_cnv2.checkpoints.tensor import STEM, shape_of
from keras_cnv2.checkpoints.translate import translation_of
from keras_cnv2.checkpoints.variables import forget_lora, variables_of
from keras_cnv2.errors import CheckpointError

logger = logging.getLogger(__name__)

# Maximum number of names that a log line shows.
SHOWN = 5


def load_checkpoint(model: keras.Model, source: str | os.PathLike | Mapping[str, Any]) -> None:
    """Loads weights into a classifier, a backbone or an FCMAE, all or nothing.

    The naming is detected: that of the official code (its dense models, and its pre-training checkpoints with sparse
    or dense kernels), of timm, of transformers, of mmpretrain, or of a Keras file. A prefix that all names share, such
    as "module." or "_orig_mod.model.", is taken off. Of weights and their moving average in one file, the average is
    taken, and a log line says so; "FILE#KEY" selects others. Every tensor of the source is used and every
    weight of the model is set, with three exceptions, each reported in one log line:

    - Parts that the model does not have are left out as a whole: a classifier's norm and head, a pyramid's norms, the
      stages and norms of levels that are not among a backbone's `out_levels`,
      FCMAE's decoder, and, in a Keras file of a segmenter, a detector or a model of your own, all layers around the
      encoder; in another file, those around a "backbone.". The level is INFO, that of the other two is WARNING.
    - Parts that the source does not have keep their initial values as a whole: the decoder, a pyramid's norms, or the
      final norm and head.
    - The kernel of a stem for three channels is summed for a model of one channel, and repeated and scaled down for
      any other number of channels, as in timm.

    In layers with LoRA, the kernel is set and the LoRA update is reset to zero.

    A classifier without class names, image size or way to resize gets those that the file carries. Weights that hold
    NaN or infinities are loaded, with a warning that counts and names them.

    ```python
    model = keras_cnv2.ConvNeXtV2Atto(classes=10)
    keras_cnv2.load_checkpoint(model, "finetuned.safetensors")
    ```

    Args:
        model: A built Keras model with the layer names of this package, not quantized.
        source: The path of a `.safetensors`, `.pt`, `.pth`, `.pth.tar`, `.ckpt`, `.bin`, `.keras` or `.weights.h5`
            file, or a mapping from names to float arrays. No code in a file is run. "FILE#KEY" is the state dict under
            this key of a file of PyTorch.

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
    variables = variables_of(model)
    dialect, tensors, left_over, around = translation_of(contents)
    surroundings, absent = sorted({name.rpartition(".")[0] for name in around}), []
    if is_around_encoder(contents.config) and has_surroundings(tensors, left_over):
        (tensors, surroundings), left_over = without_surroundings(dialect, tensors, left_over), []
        absent = absent_levels(variables, tensors)
        variables = {path: variable for path, variable in variables.items() if posixpath.dirname(path) not in absent}
    tensors, beyond = _within_levels(variables, tensors)
    fresh, dropped = _parts(variables, tensors, other_classes)
    variables = {path: variable for path, variable in variables.items() if part_of(path) not in fresh}
    tensors = {path: tensor for path, tensor in tensors.items() if part_of(path) not in dropped}
    metadata = {k: v for k, v in contents.metadata.items() if k != "class_names" or "head/bias" in variables}

    problems = [f"missing: {dialect.name_of(path)[0]}" for path in variables if path not in tensors]
    problems += [f"left over: {name}" for name in left_over]
    problems += [f"left over: {tensor.name}" for path, tensor in tensors.items() if path not in variables]
    for path in variables.keys() & tensors.keys():
        problems += tensors[path].misfits(variables[path].shape)
    if "class_names" in metadata and len(metadata["class_names"]) != variables["head/bias"].shape[0]:
        problems.append(f"metadata: {len(metadata['class_names'])} class_names for another number of classes")
    if problems:
        raise CheckpointError(
            f"The checkpoint ({dialect.name} naming) does not fit {model.name!r}, nothing was loaded. "
            f"{_advice(variables, tensors)}Received {len(problems)} misfits:\n  " + "\n  ".join(sorted(problems))
        )
    adapted = tensors[STEM].has_other_channels(variables[STEM].shape)
    not_finite = _assign(variables, tensors)
    forget_lora(model, variables)
    adopt_metadata(model, metadata)
    tell_of_not_finite(model.name, not_finite)
    if fresh := [*fresh, *absent]:
        logger.warning("%s: not taken from the checkpoint, keeps its initial values: %s", model.name, ", ".join(fresh))
    if left_out := [*dropped, *surroundings, *beyond]:
        logger.info("%s: in the checkpoint, left out: %s", model.name, ", ".join(left_out))
    if adapted:
        logger.warning("%s: the stem's kernel was adapted to %d channels", model.name, variables[STEM].shape[2])


def _within_levels(variables, tensors):
    """Separates the tensors of stages and pyramid norms that a backbone with `out_levels` lacks.

    Returns:
        A dict like `tensors` without them, and a list of words for what is left out.
    """
    last = max((stage_of(path) for path in variables if stage_of(path) is not None), default=0)
    norms = {stage_of(path) for path in variables if part_of(path) == "pyramid_norms"}

    def lacks(path):
        stage = stage_of(path)
        if stage not in range(4):  # such a tensor is reported as left over
            return False
        return stage > last or (bool(norms) and is_norm(path) and stage not in norms)

    def is_norm(path):
        return part_of(path) == "pyramid_norms"

    left_out = {("pyramid norm" if is_norm(path) else "stage", stage_of(path)) for path in tensors if lacks(path)}
    kept = {path: tensor for path, tensor in tensors.items() if not lacks(path)}
    return kept, [f"{what} {stage}" for what, stage in sorted(left_out)]


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
        classes = there[0] if there else "no"
        return f"The checkpoint's head has {classes} classes, the model's head has {variables[head].shape[0]}. "
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


def _assign(variables, tensors):
    """Sets the variables; returns the names of the tensors that hold NaN or infinities.

    All arrays are read before any variable is set, since reading may show that the file is damaged.
    """
    arrays = {path: tensors[path].read() for path in variables}
    not_finite = []
    for path, variable in variables.items():
        array = np.asarray(arrays.pop(path), dtype=keras.backend.result_type(variable.dtype, "float32"))
        if not np.isfinite(array).all():
            not_finite.append(tensors[path].name)
        variable.assign(tensors[path].here(array, tuple(variable.shape)))
    return not_finite


def tell_of_not_finite(model_name, names):
    """Logs a warning if weights hold NaN or infinities. This is no error: the user decides whether to use them."""
    if names:
        more = ", ..." if len(names) > SHOWN else ""
        logger.warning(
            "%s: %d tensors hold NaN or infinities, so that outputs will, too: %s%s",
            *(model_name, len(names), ", ".join(names[:SHOWN]), more),
        )
