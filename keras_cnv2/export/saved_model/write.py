"""Writes the signatures of a model as a SavedModel."""

import contextlib
import json

import tensorflow as tf

from keras_cnv2.export.metadata import exported_metadata


def write(folder, kind):
    """Writes a SavedModel, and its metadata as JSON.

    Args:
        folder: Path of the SavedModel. The class names are first written beside it.
        kind: `keras_cnv2.export.kinds.kind.Kind`, what is exported.
    """
    module = tf.Module()
    module.labels = kind.labels and label_table(kind.labels, folder.parent)
    signatures = {
        name: tf.function(function, input_signature=inputs, autograph=False).get_concrete_function()
        for name, (function, inputs) in kind.functions(module.labels).items()
    }
    # Only the variables that the functions read: Keras models hold other objects too, such as compiled training steps.
    module.read = [variable for function in signatures.values() for variable in function.graph.variables]
    with system_errors(folder):
        tf.saved_model.save(module, str(folder), signatures)
    extra = folder / "assets.extra"  # TensorFlow's folder for additional files of a model
    extra.mkdir()
    (extra / "keras_cnv2.json").write_text(json.dumps(exported_metadata(kind)))


def label_table(names, scratch):
    """Returns a lookup table from class ids to class names, with "" for -1. Its file becomes an asset."""
    file = scratch / "labels.txt"
    file.write_text("".join(f"{name}\n" for name in names), "utf-8")
    rows = tf.lookup.TextFileInitializer(
        str(file),
        tf.int64,
        tf.lookup.TextFileIndex.LINE_NUMBER,
        tf.string,
        tf.lookup.TextFileIndex.WHOLE_LINE,
    )
    return tf.lookup.StaticHashTable(rows, default_value="")


@contextlib.contextmanager
def system_errors(path):
    """Context manager that turns TensorFlow's errors into an `OSError`, for example when the disk is full."""
    try:
        yield
    except tf.errors.OpError as error:
        raise OSError(f"It cannot be written: {error.message[:500]}. Received: {path}") from error
