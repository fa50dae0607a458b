"""Loads a SavedModel and compares its outputs with those of its model."""

import numpy as np
import tensorflow as tf

from keras_cnv2.errors import ExportError
from keras_cnv2.export.check import compare, full_precision, sample_images, tolerance_of
from keras_cnv2.export.outputs import (
    is_encoder,
    is_segmenter,
    pictures_of,
    smallest_side,
    with_features,
    with_named_outputs,
)
from keras_cnv2.export.saved_model import segmenter
from keras_cnv2.export.saved_model.classifier import features_of, ranks_classes, with_answers_and_features
from keras_cnv2.fcmae import FCMAE
from keras_cnv2.models.heads import named_outputs
from keras_cnv2.models.pictures import load_image_for, to_input


def check_saved_model(folder, model, labels=None, resize=None):
    """Raises an `ExportError` unless the outputs of every signature are the model's.

    Args:
        folder: Path of the SavedModel.
        model: The model that was exported.
        labels: List of its class names, or `None`.
        resize: "crop", "squash" or `None`, the `resize` argument of the export.
    """
    signatures = tf.saved_model.load(str(folder)).signatures
    spec = signatures["serving_default"].structured_input_signature[1]["images"]
    encoder = model.backbone if is_segmenter(model) else model
    sides = [side or 2 * smallest_side(encoder) for side in spec.shape[1:3]]
    images = to_input(model, sample_images(*sides, spec.shape[-1]))
    if is_segmenter(model):
        with full_precision():
            segmenter.check(signatures, model, images)
        return

    def agree(name, expected, **inputs):
        specs = signatures[name].structured_input_signature[1]
        inputs = {key: tf.constant(value, specs[key].dtype) for key, value in inputs.items()}
        outputs = signatures[name](**inputs)
        for output, values in expected.items():
            compare(f"{name}, {output}", outputs[output], values, tolerance_of(model))
        return outputs

    with full_precision():
        if isinstance(model, FCMAE):
            _check_fcmae(agree, model, images)
            return
        expected = with_answers_and_features(model)(images, training=False)
        if features := features_of(model):
            agree("features", {name: expected[name] for name in features}, images=images)
        if is_encoder(model):
            agree("serving_default", expected, images=images)
            return
        names = [*named_outputs(model)]
        outputs = agree("serving_default", {name: expected[name] for name in names}, images=images)
        if ranks_classes(model):
            _check_classes(outputs, labels)
        if "serve_jpeg" in signatures:
            _check_pictures(agree, model, pictures_of(model, tuple(spec.shape[1:3]), resize))


def _check_fcmae(agree, model, images):
    hidden = agree("serving_default", {}, images=images)["hidden"].numpy()
    expected = {"reconstruction": model.reconstruct(images, hidden)}
    agree("serving_default", expected, images=images)
    agree("reconstruct", expected, images=images, hidden=hidden)
    agree("features", with_features(model.backbone)(images), images=images)


def _check_classes(outputs, labels):
    """Raises an `ExportError` unless the top classes, their names and scores follow from the probabilities."""
    for probabilities, ids, classes, scores in zip(
        *(outputs[name].numpy() for name in ("probabilities", "class_ids", "classes", "scores"))
    ):
        best = np.argsort(-probabilities, kind="stable")[: len(ids)]
        named = [name.decode() for name in classes]
        if [*ids] != [*best] or named != [labels[index] for index in best] or [*scores] != [*probabilities[best]]:
            raise ExportError(f"serving_default: classes do not follow from probabilities. Received: {named}")


def _check_pictures(agree, model, framing):
    """Checks `serve_jpeg` on two encoded images with invalid bytes between them."""
    (size, _), resize = framing
    pixels = sample_images(size, 2 * size, 3).astype("uint8")
    pictures = [tf.io.encode_png(picture).numpy() for picture in pixels]
    images = to_input(model, np.stack([load_image_for(model, picture, size, resize) for picture in pictures]))
    outputs = with_named_outputs(model)(images, training=False)
    both = {name: np.asarray(values, "float32") for name, values in outputs.items()}
    expected = {name: np.stack([first, 0 * first, second]) for name, (first, second) in both.items()}
    agree("serve_jpeg", {**expected, "decoded": [True, False, True]}, encoded=[pictures[0], b"no picture", pictures[1]])
