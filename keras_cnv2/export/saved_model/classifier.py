"""The signatures of a SavedModel: the functions that it offers, and the `tf.Module` that holds their variables."""

import keras
import tensorflow as tf

from keras_cnv2.arguments import positive_int
from keras_cnv2.export.outputs import (
    check_exportable,
    check_input_dtype,
    image_sides,
    is_encoder,
    is_segmenter,
    pictures_of,
    smallest_side,
    with_features,
    with_named_outputs,
)
from keras_cnv2.export.saved_model import decoder, segmenter
from keras_cnv2.export.saved_model.graphs import checked_images, label_table, with_signatures
from keras_cnv2.fcmae import FCMAE
from keras_cnv2.fcmae.masking import random_hidden
from keras_cnv2.folding.fold import fold
from keras_cnv2.images.pictures import Reading, check_resize
from keras_cnv2.models.backbone import ConvNeXtV2Backbone
from keras_cnv2.models.classifier import ConvNeXtV2
from keras_cnv2.models.heads import as_taken, channels_of, classes_of, named_outputs
from keras_cnv2.models.pictures import PICTURE_CHANNELS
from keras_cnv2.models.stages import pyramid_layers, total_stride

# Random seed of the masks that an FCMAE's `serving_default` applies.
SEED = 0


def served_module(
    model, *, image_size, resize, top, input_dtype, max_pixels, exif_orientation, labels, folded, scratch
):
    """Builds the signatures of a model.

    Args:
        model: A classifier, backbone, FCMAE or segmentation model of this package, or a user's model on one of its
            encoders.
        image_size, resize, top, input_dtype, max_pixels, exif_orientation: See `export_saved_model`.
        labels: List of class names, or `None`.
        folded: Bool, whether to fold the model.
        scratch: Path of a folder for temporary files, which must exist until the module is saved.

    Returns:
        A `tf.Module` that holds the variables and the table of class names, and a dict {signature name: function}.
    """
    reading = Reading(exif_orientation, max_pixels)
    if is_segmenter(model):
        return _segmentation(model, image_size, resize, input_dtype, reading, labels, folded, scratch)
    is_fcmae = isinstance(model, FCMAE)
    has_head = not is_fcmae and not is_encoder(model)
    _check(has_head, model, resize, top, input_dtype, max_pixels)
    height, width = image_sides(model, image_size)
    channels = channels_of(model)
    images = tf.TensorSpec((None, height, width, channels), input_dtype, "images")
    smallest = smallest_side(model)

    def checked(images):
        return checked_images(images, smallest, max_pixels)

    graph = with_answers_and_features(model.backbone if is_fcmae else model)
    graph = fold(graph) if folded and not is_fcmae else graph  # an FCMAE's decoder needs the unfolded encoder
    module, functions = tf.Module(), {}
    if features := features_of(model):
        functions["features"] = (lambda images: _as_floats(graph(checked(images)), features), [images])
    if is_fcmae:
        functions |= _reconstruction(model, images, checked)
    elif not has_head:
        functions["serving_default"] = functions["features"]
    else:
        module.labels = labels and label_table(labels, scratch)
        answer = _Answer(model, min(top, len(labels or [])), module.labels)
        functions["serving_default"] = (lambda images: answer(graph(checked(images))), [images])
        pictures, way = pictures_of(model, (height, width), resize)
        if way and channels in PICTURE_CHANNELS:
            to_images = decoder.decoder(pictures[0], way, channels, reading)
            functions["serve_jpeg"] = (_picture_classifier(model, graph, answer, to_images), [decoder.ENCODED])
    return with_signatures(module, functions)


def with_answers_and_features(model):
    """Returns a functional model with the outputs of the head, if there is one, and the features, see `features_of`."""
    outputs = {} if is_encoder(model) else with_named_outputs(model).output
    if not features_of(model):
        return with_named_outputs(model)
    return keras.Model(model.input, {**with_features(model).output, **outputs}, name=model.name)


def features_of(model):
    """Returns the names of the features of a classifier, backbone or FCMAE; an empty list for other models."""
    model = getattr(model, "backbone", model) if isinstance(model, FCMAE) else model
    is_ours = isinstance(model, (ConvNeXtV2, ConvNeXtV2Backbone))
    return [*pyramid_layers(model.depths, model.stem_stride), "pooled"] if is_ours else []


def _segmentation(model, image_size, resize, input_dtype, reading, labels, folded, scratch):
    """Implements `served_module` for segmentation models."""
    if resize is not None:
        raise ValueError(f"Segmentation models do not resize images: leave resize out. Received: resize={resize!r}")
    positive_int("max_pixels", reading.max_pixels)
    check_input_dtype(model, input_dtype)
    backbone, sides = model.backbone, image_sides(model, image_size)
    images = tf.TensorSpec((None, *sides, backbone.input_shape[-1]), input_dtype, "images")
    module = tf.Module()
    module.labels = label_table(labels, scratch)

    def checked(images):
        return checked_images(images, total_stride(backbone.stem_stride), reading.max_pixels)

    return with_signatures(module, segmenter.functions(model, images, checked, reading, folded))


def _check(has_head, model, resize, top, input_dtype, max_pixels):
    if not isinstance(model, FCMAE):
        check_exportable(model)
    check_resize(resize)
    positive_int("top", top)
    positive_int("max_pixels", max_pixels)
    check_input_dtype(model, input_dtype)
    if resize is not None and not has_head:
        raise ValueError(
            "resize is for models with a head, which read image files; other models take images as arrays. "
            f"Received: resize={resize!r}"
        )


def _as_floats(outputs, names):
    return {name: tf.cast(outputs[name], tf.float32) for name in names}


class _Answer:
    """Turns the outputs of a model into those of its signatures."""

    def __init__(self, model, top, labels):
        self.names, self.top, self.labels = [*named_outputs(model)], top, labels
        self.ranks_classes = ranks_classes(model)

    def __call__(self, outputs, decoded=None):
        answer = _as_floats(outputs, self.names)
        if self.ranks_classes:
            scores, ids = tf.math.top_k(answer["probabilities"], self.top)
            answer |= {"scores": scores, "class_ids": ids}
        if decoded is not None:
            answer = {name: _where(decoded, x, -1 if name == "class_ids" else 0) for name, x in answer.items()}
            answer["decoded"] = decoded
        if self.ranks_classes:
            answer["classes"] = self.labels.lookup(tf.cast(answer["class_ids"], tf.int64))
        return answer


def ranks_classes(model):
    """Whether a model returns one row of class probabilities per image, so that its top classes can be named."""
    return "probabilities" in named_outputs(model) and classes_of(model) is not None


def _where(decoded, values, nothing):
    """Replaces the values of images that could not be decoded by `nothing`."""
    decoded = tf.reshape(decoded, [-1] + [1] * (values.shape.rank - 1))
    return tf.where(decoded, values, tf.cast(nothing, values.dtype))


def _picture_classifier(model, graph, answer, to_images):
    def serve_jpeg(encoded):
        images, decoded = to_images(encoded)
        return answer(graph(as_taken(model, images)), decoded)

    return serve_jpeg


def _reconstruction(model, images, checked):
    """Returns the signatures of an FCMAE that reconstruct masked patches."""
    hidden = tf.TensorSpec((None, *model.grid), tf.float32, "hidden")

    def paint(images, hidden):
        images = checked(images)
        return model.paint(images, model(images, hidden=hidden, training=False))

    def reconstruct(images, hidden):
        visible = tf.reduce_sum(1 - hidden, (1, 2))
        fits = tf.debugging.assert_equal(
            visible, float(model.visible), f"Masks leave {model.visible} patches of each image visible"
        )
        with tf.control_dependencies([fits]):
            return {"reconstruction": paint(images, hidden)}

    def with_masks(images):
        hidden = random_hidden(tf.shape(images)[0], *model.grid, model.visible, SEED)
        return {"reconstruction": paint(images, hidden), "hidden": hidden}

    return {"reconstruct": (reconstruct, [images, hidden]), "serving_default": (with_masks, [images])}
