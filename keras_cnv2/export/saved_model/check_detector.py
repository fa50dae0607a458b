"""Loads an exported detector and compares its outputs with those of its model."""

import numpy as np
import tensorflow as tf

from keras_cnv2.detection.pictures import fit_picture
from keras_cnv2.errors import ExportError
from keras_cnv2.export.check import compare, full_precision, sample_images, tolerance_of
from keras_cnv2.export.saved_model.detector import to_picture
from keras_cnv2.models.heads import as_taken


def check_export(folder, detector, size, class_names):
    """Raises an `ExportError` unless the outputs of every signature are the detector's.

    The boxes and scores of all anchors are compared with the model's. Detections are compared with those computed from
    the exported boxes and scores, because rounding may decide which of two boxes with nearly equal scores is
    suppressed.

    Args:
        folder: Path of the SavedModel.
        detector: The `Detector` that was exported.
        size: Int, the side of its images in pixels.
        class_names: List of strings, one per class.
    """
    signatures = tf.saved_model.load(str(folder)).signatures
    spec = signatures["dense"].structured_input_signature[1]["images"]
    tolerance = tolerance_of(detector.retinanet.backbone)

    def dense(images):
        return signatures["dense"](images=tf.cast(images, signatures["dense"].inputs[0].dtype))

    with full_precision():
        images = np.asarray(as_taken(detector.retinanet, sample_images(size, size, spec.shape[-1])))
        received = dense(images)
        expected = detector.dense(detector.retinanet(images, training=False), images.shape)
        for name, values in expected.items():
            compare(f"dense, {name}", received[name], values, tolerance)
        found = signatures["serving_default"](images=tf.cast(images, spec.dtype))
        _agree("serving_default", found, detector.detections(received, images.shape), class_names)
        if "serve_jpeg" in signatures:
            pixels = sample_images(size + 1, 2 * size, 3).astype("uint8")
            encoded = [tf.io.encode_png(picture).numpy() for picture in pixels]
            fitted, scales = zip(*(fit_picture(picture, size) for picture in pixels))
            fitted = as_taken(detector.retinanet, tf.stack([fitted[0], tf.zeros_like(fitted[0]), fitted[1]]))
            expected = to_picture(
                detector.detections(dense(fitted), fitted.shape),
                tf.stack([scales[0], 1.0, scales[1]]),
                tf.constant([pixels[0].shape[:2]] * 3),
                tf.constant([True, False, True]),
            )
            found = signatures["serve_jpeg"](encoded=tf.constant([encoded[0], b"no picture", encoded[1]]))
            _agree("serve_jpeg", found, expected, class_names)


def _agree(signature, received, expected, class_names):
    """Raises an `ExportError` unless detections are the expected ones and have the right class names."""
    for output in ("boxes", "scores", "count"):
        compare(f"{signature}, {output}", received[output], expected[output])
    ids = expected["classes"].numpy()
    names = [[class_names[number] if number >= 0 else "" for number in row] for row in ids]
    received_names = [[name.decode() for name in row] for row in received["classes"].numpy()]
    if (received["class_ids"].numpy() != ids).any() or received_names != names:
        raise ExportError(f"{signature}: the classes are not the model's. Received: {received_names}")
