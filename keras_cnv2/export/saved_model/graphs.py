"""Parts that all SavedModels share: checks of images, the table of class names, tracing and writing."""

import contextlib
import json

import tensorflow as tf

from keras_cnv2.images.header import pixel_limit


def checked_images(images, smallest, max_pixels):
    """Casts images to float32, with an error for shapes that no model can take. Servers do not check shapes."""
    images = tf.ensure_shape(images, images.shape)
    shape = tf.shape(images, tf.int64)
    rules = [
        tf.debugging.assert_positive(shape[0], "Send at least one image"),
        tf.debugging.assert_greater_equal(
            tf.reduce_min(shape[1:3]), tf.constant(smallest, tf.int64), f"Sides have at least {smallest} pixels"
        ),
        tf.debugging.assert_less_equal(
            tf.reduce_prod(shape[1:3]), pixel_limit(max_pixels), f"Images have at most {max_pixels} pixels"
        ),
    ]
    with tf.control_dependencies([rule for rule in rules if rule is not None]):  # None: proven by the static shape
        return tf.cast(images, tf.float32)


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


def with_signatures(module, functions):
    """Traces the functions of a module.

    Args:
        module: A `tf.Module`.
        functions: Dict {signature name: (function, list of `tf.TensorSpec`)}.

    Returns:
        The module, which now holds the variables that the functions read, and a dict {signature name: traced function}.
    """
    signatures = {name: _traced(*function) for name, function in functions.items()}
    # Only the variables that the functions read: Keras models hold other objects too, such as compiled training steps.
    module.read = [variable for function in signatures.values() for variable in function.graph.variables]
    return module, signatures


def write(folder, module, signatures, metadata):
    """Writes a SavedModel, and its metadata as JSON.

    Args:
        folder: Path of the SavedModel.
        module, signatures: The two values that `with_signatures` returned.
        metadata: Dict from `keras_cnv2.export.metadata.exported_metadata`.
    """
    with system_errors(folder):
        tf.saved_model.save(module, str(folder), signatures)
    extra = folder / "assets.extra"  # TensorFlow's folder for additional files of a model
    extra.mkdir()
    (extra / "keras_cnv2.json").write_text(json.dumps(metadata))


@contextlib.contextmanager
def system_errors(path):
    """Context manager that turns TensorFlow's errors into an `OSError`, for example when the disk is full."""
    try:
        yield
    except tf.errors.OpError as error:
        raise OSError(f"It cannot be written: {error.message[:500]}. Received: {path}") from error


def _traced(function, signature):
    return tf.function(function, input_signature=signature, autograph=False).get_concrete_function()
