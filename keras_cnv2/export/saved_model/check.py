"""A SavedModel, read back, against its model."""

import numpy as np
import tensorflow as tf

from keras_cnv2.errors import ExportError
from keras_cnv2.export.check import compare, full_precision, sample_images, tolerance_of
from keras_cnv2.export.outputs import has_classes, is_segmenter, with_features
from keras_cnv2.export.saved_model import segmenter
from keras_cnv2.export.saved_model.classifier import picture_side, to_probabilities
from keras_cnv2.fcmae import FCMAE
from keras_cnv2.images.normalization import preprocess_input
from keras_cnv2.models.pictures import class_names, load_image_for
from keras_cnv2.models.stages import total_stride


def check_saved_model(folder, model, resize=None):
    """Raises an `ExportError` unless every signature does what the model does.

    Args:
        folder: Path of the SavedModel.
        model: The model that it was made of.
        resize: The way to resize that it was made with.
    """
    signatures = tf.saved_model.load(str(folder)).signatures
    spec = signatures["serving_default"].structured_input_signature[1]["images"]
    encoder = model.backbone if is_segmenter(model) else model
    sides = [side or 2 * total_stride(encoder.stem_stride) for side in spec.shape[1:3]]
    images = sample_images(*sides, spec.shape[-1])
    images = images if encoder.include_preprocessing else np.asarray(preprocess_input(images))
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
        features = with_features(model)(images)
        scores = features.pop("scores", None)
        agree("features", features, images=images)
        if not has_classes(model):
            agree("serving_default", features, images=images)
            return
        expected = {"probabilities": to_probabilities(model)(scores)}
        _check_classes(agree("serving_default", expected, images=images), model)
        if "serve_jpeg" in signatures:
            _check_pictures(agree, model, picture_side(model, *spec.shape[1:3]), resize)


def _check_fcmae(agree, model, images):
    hidden = agree("serving_default", {}, images=images)["hidden"].numpy()
    expected = {"reconstruction": model.reconstruct(images, hidden)}
    agree("serving_default", expected, images=images)
    agree("reconstruct", expected, images=images, hidden=hidden)
    agree("features", with_features(model.backbone)(images), images=images)


def _check_classes(outputs, model):
    """The most probable classes and their names, from the probabilities."""
    names = class_names(model)
    for probabilities, ids, classes, scores in zip(
        *(outputs[name].numpy() for name in ("probabilities", "class_ids", "classes", "scores"))
    ):
        best = np.argsort(-probabilities, kind="stable")[: len(ids)]
        named = [name.decode() for name in classes]
        if [*ids] != [*best] or named != [names[index] for index in best] or [*scores] != [*probabilities[best]]:
            raise ExportError(f"serving_default: classes do not follow from probabilities. Received: {named}")


def _check_pictures(agree, model, size, resize):
    """Encoded pictures, with one between them that is none."""
    pixels = sample_images(size, 2 * size, 3).astype("uint8")
    pictures = [tf.io.encode_png(picture).numpy() for picture in pixels]
    images = np.stack([load_image_for(model, picture, size, resize) for picture in pictures])
    images = images if model.include_preprocessing else preprocess_input(images)
    first, second = np.asarray(to_probabilities(model)(model(images)))
    expected = {"probabilities": [first, 0 * first, second], "decoded": [True, False, True]}
    agree("serve_jpeg", expected, encoded=[pictures[0], b"no picture", pictures[1]])
