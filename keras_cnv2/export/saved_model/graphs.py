"""What the graphs of all SavedModels have in common: checked images, a table of names, traced functions."""

import contextlib
import json

import tensorflow as tf

from keras_cnv2.images.header import pixel_limit


def checked_images(images, smallest, max_pixels):
    """The images as float32, with an error for what no model can take. Servers do not check shapes themselves."""
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
    with tf.control_dependencies([rule for rule in rules if rule is not None]):  # None: holds for all of this shape
        return tf.cast(images, tf.float32)


def label_table(names, scratch):
    """A table from numbers to names of classes, -1 to the empty name, whose file becomes an asset."""
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
        module: `tf.Module`.
        functions: {name of the signature: (function, list of specs)}.

    Returns:
        The module, which then holds what the functions read, and {name of the signature: traced function}.
    """
    signatures = {name: _traced(*function) for name, function in functions.items()}
    # What the functions read and no more: Keras's models hold other things as well, like compiled training steps.
    module.read = [variable for function in signatures.values() for variable in function.graph.variables]
    return module, signatures


def write(folder, module, signatures, metadata):
    """Writes a SavedModel, and beside it, as JSON, what there is to know of the model.

    Args:
        folder: Path.
        module, signatures: What `with_signatures` returned.
        metadata: Dict.
    """
    with system_errors(folder):
        tf.saved_model.save(module, str(folder), signatures)
    extra = folder / "assets.extra"  # TensorFlow's place for what goes along with a model
    extra.mkdir()
    (extra / "keras_cnv2.json").write_text(json.dumps(metadata))


@contextlib.contextmanager
def system_errors(path):
    """Makes an `OSError` of what TensorFlow raises where it cannot write, as on a full disk."""
    try:
        yield
    except tf.errors.OpError as error:
        raise OSError(f"It cannot be written: {error.message[:500]}. Received: {path}") from error


def _traced(function, signature):
    return tf.function(function, input_signature=signature, autograph=False).get_concrete_function()
