"""Opens the teacher of a distillation: a model of any kind that `--teacher` names."""

import json
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_cnv2.checkpoints.keras_config import check_config
from keras_cnv2.checkpoints.read import open_checkpoint
from keras_cnv2.images.classes import imagenet_classes, imagenet_wnids, numbered
from keras_cnv2.keras_internals import all_layers
from keras_cnv2.models.heads import activation_of, channels_of, classes_of
from keras_cnv2.restore import OUR_MODELS, restore_model

from ..errors import RecipeError, RunError
from ..evaluation.classification import of_pictures
from ..models.distillation import Teacher
from .weights import weights_of

logger = logging.getLogger(__name__)

SAVED_MODEL = "saved_model.pb"

# Of a SavedModel: its signature, and the outputs that can teach.
SIGNATURE, OUTPUTS = "serving_default", ("logits", "probabilities")

# How far the probabilities of a softmax may add up to another number than 1, in half precision.
OFF = 0.02


class Opened(NamedTuple):
    """A classifier of any origin.

    Args:
        outputs: Function from images in 0..255 to class values `(N, classes)`.
        activation: The last activation, or `None` for an unknown one.
        class_names: Its class names, or `None`.
        classes: Number of classes.
        shape: Height, width and channels of its images, `None` where they are variable.
        supports_jit: Whether XLA can compile it.
    """

    outputs: Callable
    activation: str | None
    class_names: Sequence[str] | None
    classes: int
    shape: tuple[int | None, ...]
    supports_jit: bool


def open_teacher(recipe, channels, class_names, tries=True):
    """Opens the teacher of a recipe.

    Args:
        recipe: `training.recipes.fields.Finetuning` with a teacher.
        channels: Number of channels of the images.
        class_names: Names of the classes of the data.
        tries: Whether to try it on images of the training. This is not possible in the scope of a strategy.

    Returns:
        `training.models.distillation.Teacher`.

    Raises:
        RecipeError: If it cannot be found or opened, is no classifier with logits or a softmax, or has other classes or
            channels than the data.
    """
    try:
        is_saved_model = (Path(recipe.teacher) / SAVED_MODEL).is_file()
        opened = _of_saved_model(recipe) if is_saved_model else _of_keras_model(recipe)
    except (RecipeError, RunError):
        raise
    except Exception as error:  # of many kinds, for damaged files
        raise RecipeError(f"teacher cannot be opened. Received: teacher={recipe.teacher} ({_told(error)})") from error
    *sides, own_channels = opened.shape
    if opened.activation not in ("softmax", "linear"):
        received = f"whose last activation is {opened.activation or 'none of these'}"
        _refuse(recipe, "be a classifier that ends in a softmax or in logits", received)
    if own_channels not in (None, channels):
        _refuse(recipe, f"take images of {channels} channels, as the data have", f"which takes {own_channels}")
    columns = columns_of(class_names, opened.class_names, opened.classes, recipe)
    # XLA cannot compile how TensorFlow shrinks images without aliasing.
    shrinks = any(side is not None and side < recipe.image_size for side in sides)
    supports_jit = opened.supports_jit and not (shrinks and keras.backend.backend() == "tensorflow")
    teacher = Teacher(opened.outputs, opened.activation == "softmax", columns, tuple(sides), supports_jit)
    for side in {recipe.image_size, recipe.first_size or recipe.image_size} if tries else ():
        _try(recipe, teacher, (1, side, side, channels))
    return teacher


def _refuse(recipe, demand, received):
    raise RecipeError(f"teacher must {demand}. Received: teacher={recipe.teacher}, {received}")


def _told(error):
    """Returns the text of an error in one line, without what Keras adds to errors of layers."""
    text = re.sub(r"\x1b\[\d+m", "", str(error)).partition("Arguments received by")[0]
    return " ".join(text.split())[:1000]


def _try(recipe, teacher, shape):
    """Raises a `RecipeError` unless the teacher has finite logits, or probabilities of a softmax, for a grey image."""
    try:
        logits = ops.convert_to_numpy(teacher(ops.full(shape, 127.5)))
    except Exception as error:  # of many kinds: a model of the user may raise anything
        _refuse(recipe, f"take images {shape[1:]} of the training", f"which fails with: {_told(error)}")
    if not np.isfinite(logits).all():
        _refuse(recipe, "have finite logits", "whose logits are not finite")
    if teacher.are_probabilities and abs(np.exp(logits).sum() - 1) > OFF:
        _refuse(recipe, "end in a softmax or in logits", "whose probabilities do not add up to 1")


def _of_keras_model(recipe):
    """Opens what `keras_cnv2.from_pretrained` takes, the folder of a run, or any `.keras` file."""
    model = _keras_model(weights_of(recipe, ("classifier.keras",), "teacher"))
    classes = classes_of(model)
    if classes is None:
        _refuse(recipe, "be a classifier with one output (N, classes)", f"a {type(model).__name__}")
    model.trainable = False
    pixels = of_pictures(model)

    def outputs(images):
        return pixels(images, training=False)

    return Opened(
        outputs,
        activation_of(model.outputs[0]),
        getattr(model, "class_names", None),
        classes,
        (*model.input_shape[1:3], channels_of(model)),
        all(layer.supports_jit for layer in all_layers(model)),
    )


def _keras_model(source):
    """Returns a model that the library restores, or another classifier from a `.keras` file."""
    if not str(source).endswith(".keras"):
        return restore_model(source)
    with open_checkpoint(source) as contents:
        check_config(contents.config)
        is_ours = contents.config.get("registered_name") in OUR_MODELS
    return restore_model(source) if is_ours else keras.saving.load_model(source, compile=False)


def _of_saved_model(recipe):
    """Opens a SavedModel as `keras_cnv2.export_saved_model` writes it."""
    if keras.backend.backend() != "tensorflow":
        _refuse(
            recipe,
            "be a Keras model with this backend: a SavedModel needs TensorFlow",
            f"a SavedModel, with the backend {keras.backend.backend()}",
        )
    import tensorflow as tf

    folder = Path(recipe.teacher)
    served = tf.saved_model.load(str(folder))
    if SIGNATURE not in served.signatures:
        _refuse(recipe, f"have the signature {SIGNATURE}", f"which has {sorted(served.signatures)}")
    serve = served.signatures[SIGNATURE]
    inputs, given = serve.structured_input_signature[1], serve.structured_outputs
    kind = next((name for name in OUTPUTS if name in given), None)
    if len(inputs) != 1 or kind is None:
        _refuse(
            recipe,
            f"take images and return {' or '.join(OUTPUTS)}",
            f"which takes {sorted(inputs)} and returns {sorted(given)}",
        )
    (name, spec), facts = *inputs.items(), _facts_of(folder)
    mean, std = (np.float32(facts.get(key, default)) for key, default in (("mean", 0), ("std", 1)))

    def outputs(images, served=served):  # with its function alone, TensorFlow would drop the variables
        images = (images - mean) / std
        if not spec.dtype.is_floating:
            images = ops.round(ops.clip(images, spec.dtype.min, spec.dtype.max))
        return serve(**{name: ops.cast(images, spec.dtype.name)})[kind]

    activation = "linear" if kind == "logits" else facts.get("classifier_activation", "softmax")
    supports_jit = False  # XLA cannot compile the table of class names
    return Opened(outputs, activation, facts.get("class_names"), given[kind].shape[-1], spec.shape[1:], supports_jit)


def _facts_of(folder):
    """Returns the metadata of an exported SavedModel; an empty dict for one of another origin."""
    path = folder / "assets.extra" / "keras_cnv2.json"
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def columns_of(names, theirs, classes, recipe):
    """Returns the indices of the data's classes among the teacher's: by name if both have names, else by number.

    Args:
        names: Names of the classes of the data.
        theirs: Names of the teacher's classes, or `None`.
        classes: Number of the teacher's classes.
        recipe: The recipe, for errors.

    Raises:
        RecipeError: If the classes are not the same.
    """
    names = [*names]
    if classes != len(names):
        _refuse(recipe, f"have the {len(names)} classes of the data", f"which has {classes}")
    if theirs and tuple(theirs) == imagenet_classes() and {*names} == {*imagenet_wnids()}:
        theirs = imagenet_wnids()
    if not theirs or numbered(classes) in (tuple(theirs), tuple(names)):
        logger.warning("the classes of the data and of the teacher %s are matched by their order", recipe.teacher)
        return [*range(classes)]
    theirs = [*theirs]
    if sorted(theirs) != sorted(names):
        lacks, others = (sorted({*one} - {*two})[:5] for one, two in ((names, theirs), (theirs, names)))
        _refuse(recipe, "have the classes of the data", f"which has no {lacks}, but {others}")
    return [*map(theirs.index, names)]
