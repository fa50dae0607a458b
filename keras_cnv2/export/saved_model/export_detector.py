"""`export_detector`: export of a detector as a SavedModel."""

import os

import keras

from keras_cnv2.arguments import positive_int
from keras_cnv2.detection.detector import Detector
from keras_cnv2.detection.predict import image_size_for
from keras_cnv2.export.metadata import exported_metadata
from keras_cnv2.export.outputs import check_backend, check_input_dtype, one_line_each
from keras_cnv2.files import new_folder
from keras_cnv2.images.classes import numbered
from keras_cnv2.images.header import MAX_PIXELS
from keras_cnv2.images.pictures import Reading


def export_detector(
    model: keras.Model,
    path: str | os.PathLike,
    image_size: int | None = None,
    input_dtype: str = "float32",
    max_pixels: int = MAX_PIXELS,
    exif_orientation: bool = True,
    fold: bool = True,
    overwrite: bool = False,
) -> None:
    """Writes a detector as a SavedModel, for serving.

    ```python
    detector = keras_cnv2.detection.Detector(model, score_threshold=0.3)
    keras_cnv2.detection.export_detector(detector, "exported", image_size=640)
    serve = tf.saved_model.load("exported").signatures["serve_jpeg"]
    serve(encoded=tf.constant([Path("photo.jpg").read_bytes()]))["boxes"]
    ```

    It has the signatures

    - `serving_default`: "images" `(N, S, S, C)` to "boxes" `(N, M, 4)` (left, top, right, bottom in pixels), "classes"
      `(N, M)` (names), "class_ids" and "scores" `(N, M)` and "count" `(N,)`. Detections are sorted by score, the
      highest first. From "count" on, boxes, ids and scores are -1 and names are empty.
    - `serve_jpeg`: "encoded" `(N,)`, the bytes of JPEG, PNG or WebP files of any size, to the same outputs and
      "decoded" `(N,)`. Files are resized as by `fit_picture`, and boxes are in pixels of the original image. For a file
      that cannot be decoded or is too large, "decoded" is false and there are no detections; the other files of the
      batch are not affected. This signature is left out if images do not have three channels.
    - `dense`: "images" to "boxes" `(N, A, 4)` and "scores" `(N, A, classes)` of all anchors, before any suppression.

    `assets/labels.txt` contains the class names, one per line. `assets.extra/keras_cnv2.json` contains them as well,
    with the image size, the channels, "mean" and "std". The SavedModel is loaded and its outputs are compared with the
    model's before the folder is moved to `path`.

    Args:
        model: A `keras_cnv2.detection.Detector`, or a RetinaNet, which is exported as `Detector(model)`.
        path: Path of the folder to write.
        image_size: Int S, the side of the images in pixels, a multiple of 32. By default that of the backbone's
            `input_shape`.
        input_dtype: "float32" or "uint8", the dtype of "images".
        max_pixels: Int, height times width of the largest file to decode.
        exif_orientation: Bool, whether `serve_jpeg` rotates images according to their EXIF data, see
            `keras_cnv2.load_image`.
        fold: Bool, whether to fold the model, see `keras_cnv2.fold`.
        overwrite: Bool, whether to replace a SavedModel at `path`.

    Raises:
        ValueError: If an argument is out of range.
        ExportError: If the outputs differ from the model's; no folder is left behind.
        OSError: If `path` exists and is not to be replaced, or cannot be written.
    """
    check_backend("A SavedModel")
    detector = model if isinstance(model, Detector) else Detector(model)
    size = image_size_for(detector.retinanet, image_size)
    positive_int("max_pixels", max_pixels)
    check_input_dtype(detector.retinanet, input_dtype)
    names = [*one_line_each(detector.class_names or numbered(detector.retinanet.classes))]

    from keras_cnv2.export.saved_model.check_detector import check_export
    from keras_cnv2.export.saved_model.detector import served_module
    from keras_cnv2.export.saved_model.graphs import write

    with new_folder(path, overwrite) as folder:
        module, signatures = served_module(
            detector,
            size=size,
            class_names=names,
            input_dtype=input_dtype,
            reading=Reading(exif_orientation, max_pixels),
            folded=fold,
            scratch=folder.parent,
        )
        write(folder, module, signatures, exported_metadata(detector.retinanet, (size, size), labels=names))
        check_export(folder, detector, size, names)
