"""`export_saved_model`: export for TensorFlow Serving, `tf.saved_model.load` and C++ programs."""

import os
from collections.abc import Sequence

import keras

from keras_cnv2.arguments import positive_int
from keras_cnv2.export.options import Options
from keras_cnv2.export.requirements import check_backend
from keras_cnv2.files import new_folder
from keras_cnv2.images.header import MAX_PIXELS
from keras_cnv2.images.pictures import Reading
from keras_cnv2.layers.quantized import quantized_as


def export_saved_model(
    model: keras.Model,
    path: str | os.PathLike,
    image_size: int | None = None,
    resize: str | None = None,
    top: int = 5,
    input_dtype: str = "float32",
    max_pixels: int = MAX_PIXELS,
    exif_orientation: bool = True,
    fold: bool = True,
    overwrite: bool = False,
    class_names: Sequence[str] | None = None,
) -> None:
    """Writes a model as a SavedModel, for serving.

    ```python
    keras_cnv2.export_saved_model(model, "exported")
    serve = tf.saved_model.load("exported").signatures["serve_jpeg"]
    serve(encoded=tf.constant([Path("photo.jpg").read_bytes()]))["classes"]
    ```

    A classifier gets three signatures:

    - `serving_default`: "images" `(N, H, W, C)` to "probabilities" `(N, classes)` and, for the most probable classes,
      "classes" (names), "class_ids" and "scores", each `(N, top)`.
    - `serve_jpeg`: "encoded" `(N,)`, the bytes of JPEG, PNG or WebP files, to the same outputs and "decoded" `(N,)`.
      The files are read and resized as by `keras_cnv2.load_image`. For a file that cannot be decoded or is too large,
      "decoded" is false, probabilities and scores are 0, ids are -1 and names are empty; the other files of the batch
      are not affected.
    - `features`: "images" to "pooled" `(N, D)`, the input of the last dense layer, and "P2" to "P5", the feature maps.

    For a classifier without softmax or sigmoid, the first two signatures return the model's own values, as "logits" or,
    with another activation, "scores", instead of probabilities and classes. A model of your own on an encoder of this
    package has the first two signatures, with outputs named in the same way. If it has several outputs, they are named
    after their layers, or after the keys of the dict that the model returns.

    Backbones, and classifiers without their top, have `features` only, which is also called `serving_default`. An
    `FCMAE` has `features`, computed on unmasked images; `reconstruct`, from "images" and "hidden" to "reconstruction";
    and `serving_default`, from "images" to "reconstruction" and "hidden", which uses the same mask in every call.

    A segmentation model, `keras_cnv2.segmentation.UPerNet` or `deeplab_v3_plus` on a backbone of this package, has
    `serving_default`, "images" to "class_map" (int32) and "scores" (the probability of that class), each `(N, H, W)`.
    If height and width are variable, it also has `serve_jpeg`, "encoded" `(1,)` to the same outputs: it takes one file,
    does not resize it, and raises an error if the file cannot be decoded.

    A detector, a `keras_cnv2.detection.Detector` or a RetinaNet or Mask R-CNN with the default one, has these:

    - `serving_default`: "images" `(N, S, S, C)` to "boxes" `(N, M, 4)` (left, top, right, bottom in pixels), "classes"
      `(N, M)` (names), "class_ids" and "scores" `(N, M)` and "count" `(N,)`. Detections are sorted by score, the
      highest first. From "count" on, boxes, ids and scores are -1 and names are empty.
    - `serve_jpeg`: "encoded" `(N,)` to the same outputs and "decoded" `(N,)`. Files of any size are resized as by
      `keras_cnv2.detection.fit_picture`, and boxes are in pixels of the original file. It needs three channels.
    - `dense`: "images" to "boxes" `(N, A, 4)` and "scores" `(N, A, classes)` of all anchors, before any suppression. Of
      Mask R-CNN they are those of its proposals, with "boxes" for each class, `(N, P, classes, 4)`; it also returns
      these "proposals" `(N, P, 4)`, and "objectness" `(N, A)` and "deltas" `(N, A, 4)` of all anchors.

    With masks, all of these but `dense` also return "masks" `(N, M, 28, 28)`, for each detection the probability that a
    part of its box is the object, 0 from "count" on. Resized to the box, values of at least 0.5 are the object. Two
    more signatures also paste them:

    - `image_masks` and `jpeg_masks`: as `serving_default` and `serve_jpeg`, and "image_masks", bool `(N, M, S, S)`. Of
      a file, they are those in the square image into which it is fitted: the left and upper part of it, with the aspect
      ratio of the picture and a longer side of S pixels.

    `assets/labels.txt` contains the class names, one per line. `assets.extra/keras_cnv2.json` contains them as well,
    and describes the preprocessing: "image_size", "resize", "channels", "mean" and "std" (to normalise images in 0..255
    before they are passed as "images"; 0 and 1 if the model normalises them itself), the activation if it is not the
    default one and, of a detector, "score_threshold" and "mask_threshold". `serve_jpeg` is left out if images are not
    square or do not have one or three channels.

    The SavedModel is loaded and its outputs are compared with the model's before the folder is moved to `path`.

    Args:
        model: A `keras_cnv2.ConvNeXtV2`, `ConvNeXtV2Backbone`, `FCMAE`, segmentation model or detector, or a functional
            or sequential model of your own that contains one of the first two.
        path: Path of the folder to write.
        image_size: Optional int, the height and width of images in pixels. By default those of the model's
            `input_shape`, which may be variable; `serve_jpeg` then uses `model.image_size` or 224. A fixed size is
            faster. A detector needs a fixed one, a multiple of 32; its default is `model.image_size`.
        resize: "crop" or "squash", see `keras_cnv2.load_image`. By default the model's `resize`, if the image size is
            the model's own. Not for detectors.
        top: Int, how many classes to name; at most all. Only for classifiers.
        input_dtype: "float32" or "uint8", the dtype of "images".
        max_pixels: Int, height times width of the largest file to decode and of the largest image to accept.
        exif_orientation: Bool, whether `serve_jpeg` rotates images according to their EXIF data, see
            `keras_cnv2.load_image`.
        fold: Bool, whether to fold the model, see `keras_cnv2.fold`. Quantized models are never folded.
        overwrite: Bool, whether to replace a SavedModel at `path`.
        class_names: Optional list of strings, one per class. By default the model's, else "class 0" and so on.

    Raises:
        ValueError: If the model is not of a supported kind, or an argument is out of range.
        ExportError: If the outputs differ from the model's; no folder is left behind.
        OSError: If `path` exists and is not to be replaced, or cannot be written.
    """
    check_backend("A SavedModel")
    from keras_cnv2.export.kinds.kind import kind_for
    from keras_cnv2.export.saved_model.check import check_saved_model
    from keras_cnv2.export.saved_model.write import write

    kind = kind_for(model)(
        model,
        Options(
            image_size=image_size,
            resize=resize,
            class_names=class_names,
            input_dtype=input_dtype,
            top=positive_int("top", top),
            reading=Reading(exif_orientation, positive_int("max_pixels", max_pixels)),
            fold=fold and not quantized_as(model),
        ),
    )
    with new_folder(path, overwrite) as folder:
        write(folder, kind)
        check_saved_model(folder, kind)
