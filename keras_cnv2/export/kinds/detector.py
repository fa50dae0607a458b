"""Detectors: boxes of images, in the pixels of image files, and of all anchors."""

import keras
import tensorflow as tf

from keras_cnv2.detection.anchors import MULTIPLE
from keras_cnv2.detection.boxes import clip
from keras_cnv2.detection.detector import Detector
from keras_cnv2.detection.pictures import fit_picture
from keras_cnv2.detection.predict import class_names_of, image_size_for
from keras_cnv2.errors import ExportError
from keras_cnv2.export.check import compare, sample_images
from keras_cnv2.export.decoder import ENCODED, decoder
from keras_cnv2.export.images import Images, check_input_dtype
from keras_cnv2.export.labels import one_line_each
from keras_cnv2.folding.fold import fold
from keras_cnv2.models.heads import as_taken, channels_of


class ExportedDetector:
    """A `Kind`: a `Detector`, or a RetinaNet with the default one. Its `model` is the RetinaNet."""

    def __init__(self, model, options):
        if options.resize is not None:
            raise ValueError(f"resize does not apply to detectors: leave it out. Received: resize={options.resize!r}")
        self.detector = model if isinstance(model, Detector) else Detector(model)
        self.model, self.options = self.detector.model, options
        size = image_size_for(self.model, options.image_size)
        check_input_dtype(self.model, options.input_dtype)
        self.labels = [*one_line_each(class_names_of(self.model, options.class_names))]
        self.images = Images((None, size, size, channels_of(self.model)), MULTIPLE, size**2, options.input_dtype)
        self.pictures = (size, size), None

    def functions(self, names):
        graph = fold(keras.Model(self.model.inputs, self.model.outputs)) if self.options.fold else self.model
        shape = self.images.shape
        inputs = [tf.TensorSpec(shape, self.images.dtype, "images")]

        def dense(images):
            box, classification = keras.tree.flatten(graph({"images": self.images.checked(images)}))
            return self.detector.dense({"box": box, "classification": classification}, shape)

        def with_names(found):
            return {
                **found,
                "classes": names.lookup(tf.cast(found["classes"], tf.int64)),
                "class_ids": found["classes"],
            }

        def serve(images):
            return with_names(self.detector.detections(dense(images), shape))

        def serve_jpeg(encoded):
            images, scales, sides, decoded = decode(encoded)
            found = self.detector.detections(dense(as_taken(self.model, images)), shape)
            return {**with_names(_to_picture(found, scales, sides, decoded)), "decoded": decoded}

        found = {"serving_default": (serve, inputs), "dense": (dense, inputs)}
        if shape[-1] == 3:
            decode = _picture_decoder(shape[1], self.options.reading)
            found["serve_jpeg"] = (serve_jpeg, [ENCODED])
        return found

    def check(self, served, images):
        """Raises an `ExportError` unless the outputs of every signature are the detector's.

        The boxes and scores of all anchors are compared with the model's. Detections are compared with those computed
        from the exported boxes and scores, because rounding may decide which of two boxes with nearly equal scores is
        suppressed.
        """
        expected = self.detector.dense(self.model(images, training=False), images.shape)
        dense = served.outputs("dense", expected, images=images)
        found = served.outputs("serving_default", {}, images=images)
        self._agree("serving_default", found, self.detector.detections(dense, images.shape))
        if "serve_jpeg" in served.signatures:
            self._check_pictures(served)

    def _check_pictures(self, served):
        """Checks `serve_jpeg` on two encoded images with invalid bytes between them."""
        size = self.images.shape[1]
        pixels = sample_images((2, size + 1, 2 * size, 3)).astype("uint8")
        encoded = [tf.io.encode_png(picture).numpy() for picture in pixels]
        fitted, scales = zip(*(fit_picture(picture, size) for picture in pixels))
        images = as_taken(self.model, tf.stack([fitted[0], tf.zeros_like(fitted[0]), fitted[1]]))
        expected = _to_picture(
            self.detector.detections(served.outputs("dense", {}, images=images), images.shape),
            tf.stack([scales[0], 1.0, scales[1]]),
            tf.constant([pixels[0].shape[:2]] * 3),
            tf.constant([True, False, True]),
        )
        found = served.outputs("serve_jpeg", {}, encoded=[encoded[0], b"no picture", encoded[1]])
        self._agree("serve_jpeg", found, expected)

    def _agree(self, signature, received, expected):
        """Raises an `ExportError` unless detections are the expected ones and have the right class names."""
        for output in ("boxes", "scores", "count"):
            compare(f"{signature}, {output}", received[output], expected[output])
        ids = expected["classes"].numpy()
        names = [[self.labels[number] if number >= 0 else "" for number in row] for row in ids]
        received_names = [[name.decode() for name in row] for row in received["classes"].numpy()]
        if (received["class_ids"].numpy() != ids).any() or received_names != names:
            raise ExportError(f"{signature}: the classes are not the model's. Received: {received_names}")


def _to_picture(found, scales, sides, decoded):
    """Converts detections from the coordinates of the model's images to those of the original images.

    Args:
        found: Dict of tensors that a `Detector` returns.
        scales: Float tensor `(N,)`, from `fit_picture`.
        sides: Tensor `(N, 2)`, heights and widths of the original images in pixels.
        decoded: Bool tensor `(N,)`, false for images that could not be decoded: their detections are removed.

    Returns:
        A dict like `found`.
    """
    height, width = tf.unstack(tf.cast(sides, tf.float32)[:, None], axis=-1)
    is_there = (found["classes"] >= 0) & decoded[:, None]
    boxes = clip(found["boxes"] / scales[:, None, None], height, width)
    return {
        "boxes": tf.where(is_there[..., None], boxes, -1.0),
        "classes": tf.where(is_there, found["classes"], -1),
        "scores": tf.where(is_there, found["scores"], -1.0),
        "count": tf.where(decoded, found["count"], 0),
    }


def _picture_decoder(size, reading):
    """Makes a function from encoded images `(N,)` to images, scales, original sides, and whether each was decoded."""

    def to_image(pixels):
        image, scale = fit_picture(pixels, size)
        return image, scale, tf.shape(pixels)[:2]

    black = tf.zeros((size, size, 3)), tf.constant(1.0), tf.constant([size, size])
    return decoder(to_image, black, size, reading)
