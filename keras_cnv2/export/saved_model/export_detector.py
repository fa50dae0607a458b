"""`export_detector`: a detector as a SavedModel."""

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
    keras_cnv2.detection.export_detector(Detector(model, score_threshold=0.3), "exported", image_size=640)
    serve = tf.saved_model.load("exported").signatures["serve_jpeg"]
    serve(encoded=tf.constant([Path("photo.jpg").read_bytes()]))["boxes"]
    ```

    It has the signatures

    - `serving_default`: "images" `(N, S, S, C)` to "boxes" `(N, M, 4)`, left, top, right, bottom in pixels, "classes"
      `(N, M)` (names), "class_ids" and "scores" `(N, M)` and "count" `(N,)`: the best first, with boxes, ids and scores
      of -1 and empty names from "count" on.
    - `serve_jpeg`: "encoded" `(N,)`, the bytes of JPEG, PNG or WebP files of any size, to the same and "decoded"
      `(N,)`. Boxes are in the picture's own pixels; it is fitted into the image as `fit_picture` does it. A picture
      that cannot be decoded or is too large has "decoded" false and no detections; its neighbours get theirs. It is
      left out for images of other than three channels.
    - `dense`: "images" to "boxes" `(N, A, 4)` and "scores" `(N, A, classes)` of all anchors, before any suppression.

    The names of the classes are in `assets/labels.txt`, one a line, and with the image size, the channels, "mean" and
    "std" in `assets.extra/keras_cnv2.json`. Before the folder takes its place, it is read back and its outputs are
    compared with the model's.

    Args:
        model: A `keras_cnv2.detection.Detector`, or a RetinaNet, which is exported as `Detector(model)`.
        path: Of the folder to write.
        image_size: Int S, the side of the images, a multiple of 32. By default that of the backbone's `input_shape`.
        input_dtype: "float32" or "uint8", of "images".
        max_pixels: Int, height times width of the largest picture to decode.
        exif_orientation: Bool, whether `serve_jpeg` turns pictures as their EXIF data say, see `keras_cnv2.load_image`.
        fold: Bool, whether to fold the model, see `keras_cnv2.fold`.
        overwrite: Bool, whether to replace a SavedModel at `path`.

    Raises:
        ValueError: If an argument is out of range.
        ExportError: If the outputs are not those of the model; the folder is not left behind.
        OSError: If there is something at `path`, or it cannot be written.
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
