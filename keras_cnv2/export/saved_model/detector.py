"""The signatures of a detector's SavedModel."""

import keras
import tensorflow as tf

from keras_cnv2.detection.anchors import MULTIPLE
from keras_cnv2.detection.boxes import clip
from keras_cnv2.detection.pictures import fit_picture
from keras_cnv2.export.saved_model.decoder import ENCODED, each_decoded
from keras_cnv2.export.saved_model.graphs import checked_images, label_table, with_signatures
from keras_cnv2.folding.fold import fold
from keras_cnv2.models.heads import as_taken


def served_module(detector, *, size, class_names, input_dtype, reading, folded, scratch):
    """Builds the signatures of a detector.

    Args:
        detector: A `Detector`.
        size: Int, the side of the images in pixels.
        class_names: List of strings, one per class.
        input_dtype: "float32" or "uint8", the dtype of "images".
        reading: `keras_cnv2.images.pictures.Reading`, how image files are read.
        folded: Bool, whether to fold the model.
        scratch: Path of a folder for temporary files, which must exist until the module is saved.

    Returns:
        A `tf.Module` that holds the variables and the table of class names, and a dict {signature name: function}.
    """
    retinanet = detector.retinanet
    predict = fold(keras.Model(retinanet.inputs, retinanet.outputs)) if folded else retinanet
    channels = retinanet.backbone.input_shape[-1]
    shape = (None, size, size, channels)
    images_spec = tf.TensorSpec(shape, input_dtype, "images")
    module = tf.Module()
    module.labels = label_table(class_names, scratch)

    def dense(images):
        images = checked_images(images, MULTIPLE, size**2)
        box, classification = keras.tree.flatten(predict({"images": images}))
        return detector.dense({"box": box, "classification": classification}, shape)

    def with_names(found):
        names = module.labels.lookup(tf.cast(found["classes"], tf.int64))
        return {**found, "classes": names, "class_ids": found["classes"]}

    def serve(images):
        return with_names(detector.detections(dense(images), shape))

    def serve_jpeg(encoded):
        images, scales, sides, decoded = to_images(encoded)
        found = detector.detections(dense(as_taken(detector.retinanet, images)), shape)
        return {**with_names(to_picture(found, scales, sides, decoded)), "decoded": decoded}

    functions = {"serving_default": (serve, [images_spec]), "dense": (dense, [images_spec])}
    if channels == 3:
        to_images = picture_decoder(size, reading)
        functions["serve_jpeg"] = (serve_jpeg, [ENCODED])
    return with_signatures(module, functions)


def to_picture(found, scales, sides, decoded):
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


def picture_decoder(size, reading):
    """Makes a function from encoded images `(N,)` to images, scales, original sides, and whether each was decoded."""

    def to_image(pixels):
        image, scale = fit_picture(pixels, size)
        return image, scale, tf.shape(pixels)[:2]

    black = tf.zeros((size, size, 3)), tf.constant(1.0), tf.constant([size, size])
    return each_decoded(to_image, black, size, reading)
