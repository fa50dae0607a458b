"""Detectors: boxes and masks of images, boxes in the pixels of image files, and all boxes before suppression."""

import numpy as np
import tensorflow as tf

from keras_cnv2.detection.anchors import MULTIPLE
from keras_cnv2.detection.boxes import clip
from keras_cnv2.detection.detector import Detector
from keras_cnv2.detection.pictures import fit_picture
from keras_cnv2.detection.predict import class_names_of, image_size_for
from keras_cnv2.detection.two_stage.paste import THRESHOLD, paste_masks
from keras_cnv2.errors import ExportError
from keras_cnv2.export.check import TOLERANCE, compare, sample_images
from keras_cnv2.export.decoder import ENCODED, decoder
from keras_cnv2.export.images import Images, check_input_dtype
from keras_cnv2.export.kinds.stages import stages_of
from keras_cnv2.export.labels import one_line_each
from keras_cnv2.models.heads import as_taken, channels_of

# What the names of the outputs of `dense` start with in files without signatures.
DENSE = "dense_"


class ExportedDetector:
    """A `Kind`: a `Detector`, or a RetinaNet or Mask R-CNN with the default one. Its `model` is not the `Detector`."""

    def __init__(self, model, options):
        if options.resize is not None:
            raise ValueError(f"resize does not apply to detectors: leave it out. Received: resize={options.resize!r}")
        self.detector = model if isinstance(model, Detector) else Detector(model)
        self.model, self.options = self.detector.model, options
        self.stages = stages_of(self.model)
        size = image_size_for(self.model, options.image_size)
        check_input_dtype(self.model, options.input_dtype)
        self.labels = [*one_line_each(class_names_of(self.model, options.class_names))]
        self.images = Images((None, size, size, channels_of(self.model)), MULTIPLE, size**2, options.input_dtype)
        self.pictures = (size, size), None
        self.thresholds = {"score_threshold": self.detector.score_threshold}
        if self.detector.has_masks:
            self.thresholds["mask_threshold"] = THRESHOLD

    def functions(self, names):
        shape = self.images.shape
        predict = self.stages.predictor(self.options.fold)

        # A function of its own is traced once for all signatures.
        @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32)], autograph=False)
        def predicted(images):
            predictions = predict(images)
            return predictions, self.stages.dense(predictions, shape)

        def dense(images):
            return predicted(self.images.checked(images))[1]

        def in_images(images):
            predictions, dense = predicted(self.images.checked(images))
            return self.detector.with_masks(predictions, self.detector.detections(dense, shape))

        def in_squares(encoded):
            images, *pictures = decode(encoded)
            return self._in_squares(*predicted(as_taken(self.model, images)), *pictures), pictures

        def serve(images):
            return _with_names(in_images(images), names)

        def image_masks(images):
            found = in_images(images)
            return {**_with_names(found, names), "image_masks": self._pasted(found)}

        def serve_jpeg(encoded):
            found, (scales, sides, decoded) = in_squares(encoded)
            return {**_with_names(_in_pictures(found, scales, sides), names), "decoded": decoded}

        def jpeg_masks(encoded):
            found, (scales, sides, decoded) = in_squares(encoded)
            named = _with_names(_in_pictures(found, scales, sides), names)
            return {**named, "decoded": decoded, "image_masks": self._pasted(found)}

        inputs = [tf.TensorSpec(shape, self.images.dtype, "images")]
        found = {"serving_default": (serve, inputs), "dense": (dense, inputs)}
        if self.detector.has_masks:
            found["image_masks"] = image_masks, inputs
        if shape[-1] == 3:
            decode = _picture_decoder(shape[1], self.options.reading)
            found["serve_jpeg"] = serve_jpeg, [ENCODED]
            if self.detector.has_masks:
                found["jpeg_masks"] = jpeg_masks, [ENCODED]
        return found

    def graph(self):
        """Returns a function from images to the outputs of a file that has no signatures.

        They are those of `serving_default`, without class names, and those of `dense`, whose names start with "dense_".
        """
        predict, shape = self.stages.predictor(self.options.fold), self.images.shape

        def outputs(images):
            predictions = predict(images)
            dense = self.stages.dense(predictions, shape)
            found = self.detector.with_masks(predictions, self.detector.detections(dense, shape))
            found["class_ids"] = found.pop("classes")
            return {**found, **{f"{DENSE}{name}": values for name, values in dense.items()}}

        return outputs

    def _in_squares(self, predictions, dense, scales, sides, decoded):
        """Returns the detections in square images, in that part of each which the picture covers.

        Args:
            predictions: Dict of tensors that the model returned.
            dense: Dict of tensors that `Detector.dense` returned.
            scales: Float tensor `(N,)`, from `fit_picture`.
            sides: Tensor `(N, 2)`, heights and widths of the pictures in their own pixels.
            decoded: Bool tensor `(N,)`, false for pictures that could not be decoded: their detections are removed.
        """
        found = self.detector.detections(dense, self.images.shape)
        is_there = (found["classes"] >= 0) & decoded[:, None]
        boxes = clip(found["boxes"], *_height_and_width(sides, scales))
        found = {
            "boxes": tf.where(is_there[..., None], boxes, -1.0),
            "classes": tf.where(is_there, found["classes"], -1),
            "scores": tf.where(is_there, found["scores"], -1.0),
            "count": tf.where(decoded, found["count"], 0),
        }
        # A mask is that of its box: boxes are clipped before.
        return self.detector.with_masks(predictions, found)

    def _pasted(self, found):
        """Pastes masks into the square images, bool `(N, M, size, size)`.

        Object by object: the probabilities of all pixels would take four times as much memory as the result.
        """
        size = self.images.shape[1]

        def paste(columns):
            return self._probabilities(*(column[:, None] for column in columns))[:, 0] >= THRESHOLD

        objects = tf.transpose(found["masks"], (1, 0, 2, 3)), tf.transpose(found["boxes"], (1, 0, 2))
        spec = tf.TensorSpec((None, size, size), tf.bool)
        return tf.transpose(tf.map_fn(paste, objects, fn_output_signature=spec), (1, 0, 2, 3))

    def _probabilities(self, masks, boxes):
        size = self.images.shape[1]
        return paste_masks(masks, boxes, size, size, self.model.variant.padded_paste)

    def check(self, served, images):
        """Raises an `ExportError` unless the outputs of every signature are the detector's.

        What is predicted for all anchors or proposals is compared with the model's. Detections are compared with those
        computed from the exported boxes and scores, because rounding may decide which of two boxes with nearly equal
        scores is suppressed. Masks are compared with the model's masks of these detections.
        """
        predictions = self.model(images, training=False)
        dense = served.outputs("dense", {}, images=images)
        served.compare("dense", dense, self.stages.expected(dense, predictions, images.shape))
        found = self.detector.with_masks(predictions, self.detector.detections(dense, images.shape))
        for signature in ("serving_default", "image_masks"):
            self._agree(served, signature, found, found["boxes"], images=images)
        if "serve_jpeg" in served.signatures:
            self._check_pictures(served)

    def _check_pictures(self, served):
        """Checks the signatures for files on two encoded images with invalid bytes between them."""
        size = self.images.shape[1]
        pixels = sample_images((2, size + 1, 2 * size, 3)).astype("uint8")
        encoded = [tf.io.encode_png(picture).numpy() for picture in pixels]
        fitted, scales = zip(*(fit_picture(picture, size) for picture in pixels))
        images = as_taken(self.model, tf.stack([fitted[0], tf.zeros_like(fitted[0]), fitted[1]]))
        scales, sides = tf.stack([scales[0], 1.0, scales[1]]), tf.constant([pixels[0].shape[:2]] * 3)
        predictions, dense = self.model(images, training=False), served.outputs("dense", {}, images=images)
        found = self._in_squares(predictions, dense, scales, sides, tf.constant([True, False, True]))
        for signature in ("serve_jpeg", "jpeg_masks"):
            pictures = [encoded[0], b"no picture", encoded[1]]
            self._agree(served, signature, _in_pictures(found, scales, sides), found["boxes"], encoded=pictures)

    def _agree(self, served, signature, expected, boxes, **inputs):
        """Raises an `ExportError` unless a signature, if there is one of this name, returns what is expected.

        Args:
            served: `keras_cnv2.export.saved_model.check.Served`.
            signature: Its name.
            expected: Dict of detections.
            boxes: Their boxes in the square images, where masks are pasted.
            **inputs: The inputs of the signature.
        """
        if signature not in served.signatures:
            return
        received = served.outputs(signature, {}, **inputs)
        for output in ("boxes", "scores", "count"):
            compare(f"{signature}, {output}", received[output], expected[output])
        ids = expected["classes"].numpy()
        names = [[self.labels[number] if number >= 0 else "" for number in row] for row in ids]
        if "classes" in received:
            received_names = [[name.decode() for name in row] for row in received["classes"].numpy()]
        else:  # a file without names
            received_names = names
        if (received["class_ids"].numpy() != ids).any() or received_names != names:
            raise ExportError(f"{signature}: the classes are not the model's. Received: {received_names}")
        if self.detector.has_masks:
            # Half precision rounds logits, by a part of the largest one: probabilities near 0.5 differ most.
            scale = (lambda masks: masks) if served.tolerance == TOLERANCE else _logits
            served.compare(signature, {"masks": scale(received["masks"])}, {"masks": scale(expected["masks"])})
        if "image_masks" in received:
            self._check_pasted(signature, received, boxes)

    def _check_pasted(self, signature, received, boxes):
        """Raises an `ExportError` unless the pasted masks follow from the masks, as far as rounding allows."""
        for number in range(boxes.shape[1]):
            one = slice(number, number + 1)
            probabilities = self._probabilities(received["masks"][:, one], boxes[:, one]).numpy()
            pasted, expected = received["image_masks"][:, one].numpy(), probabilities >= THRESHOLD
            is_clear = np.abs(probabilities - THRESHOLD) > TOLERANCE
            compare(f"{signature}, image_masks", np.where(is_clear, pasted, expected), expected)


def _logits(probabilities):
    """The inverse of the sigmoid, up to a distance of 1e-6 from 0 and 1."""
    probabilities = np.clip(probabilities, 1e-6, 1 - 1e-6)
    return np.log(probabilities / (1 - probabilities))


def _with_names(found, names):
    return {**found, "classes": names.lookup(tf.cast(found["classes"], tf.int64)), "class_ids": found["classes"]}


def _in_pictures(found, scales, sides):
    """Converts detections from the coordinates of the square images to those of the pictures."""
    boxes = clip(found["boxes"] / scales[:, None, None], *_height_and_width(sides))
    return {**found, "boxes": tf.where(found["classes"][..., None] >= 0, boxes, -1.0)}


def _height_and_width(sides, scales=None):
    """Returns heights and widths, float32 `(N, 1)` each, times the scales."""
    sides = tf.cast(sides, tf.float32)
    sides = sides if scales is None else sides * scales[:, None]
    return tf.unstack(sides[:, None], axis=-1)


def _picture_decoder(size, reading):
    """Makes a function from encoded images `(N,)` to images, scales, original sides, and whether each was decoded."""

    def to_image(pixels):
        image, scale = fit_picture(pixels, size)
        return image, scale, tf.shape(pixels)[:2]

    black = tf.zeros((size, size, 3)), tf.constant(1.0), tf.constant([size, size])
    return decoder(to_image, black, size, reading)
