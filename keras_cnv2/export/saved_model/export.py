"""`export_saved_model`: what TensorFlow Serving, `tf.saved_model.load` and C++ programs run."""

import os
from collections.abc import Sequence

import keras

from keras_cnv2.export.metadata import exported_metadata
from keras_cnv2.export.outputs import check_backend, image_sides, is_segmenter, labels_of, pictures_of
from keras_cnv2.fcmae import FCMAE
from keras_cnv2.files import new_folder
from keras_cnv2.images.header import MAX_PIXELS
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

    - `serving_default`: "images" `(N, H, W, C)` to "probabilities" `(N, classes)` and, of the most probable classes,
      "classes" (names), "class_ids" and "scores", each `(N, top)`.
    - `serve_jpeg`: "encoded" `(N,)`, the bytes of JPEG, PNG or WebP files, to the same and "decoded" `(N,)`. Images
      are made of them as `keras_cnv2.load_image` does it. A picture that cannot be decoded or is too large has
      "decoded" false, probabilities and scores of 0, ids of -1 and empty names; its neighbours get their answers.
    - `features`: "images" to "pooled" `(N, D)`, which the last dense layer takes, and "P2" to "P5", the feature maps.

    Without softmax or sigmoid the first two have the model's own numbers, "logits" or, with another activation,
    "scores", in place of probabilities and classes. A head of your own on one of our encoders has the first two, with
    its outputs named in the same way; several have the names of their layers, or of the dict that the model gives.

    Backbones, and classifiers without their top, have `features` alone, under the name `serving_default` as well. An
    `FCMAE` has `features`, of whole images; `reconstruct`, "images" and "hidden" to "reconstruction"; and
    `serving_default`, which hides the same patches in every call, "images" to "reconstruction" and "hidden".

    A segmentation model, `keras_cnv2.segmentation.UPerNet` or `deeplab_v3_plus` on a backbone of this package, has
    `serving_default`, "images" to "class_map" (int32) and "scores" (the probability of that class), each `(N, H, W)`;
    and, where height and width are open, `serve_jpeg`, "encoded" `(1,)`, to the same: one picture, seen at its own
    size, and an error if it is none.

    The names of the classes are in `assets/labels.txt`, one a line. `assets.extra/keras_cnv2.json` has them too, and
    what this export does with pictures: "image_size", "resize", "channels", "mean" and "std" (what pictures in 0..255
    are normalised with before they go in as "images"; 0 and 1 where the model does it), and an activation other than
    the default one. `serve_jpeg` is left out for images that are not square, or have other than one or three channels.

    Before the folder takes its place, it is read back and its outputs are compared with the model's.

    Args:
        model: A `keras_cnv2.ConvNeXtV2`, `ConvNeXtV2Backbone`, `FCMAE` or segmentation model, or a functional or
            sequential model of your own on one of the first two.
        path: Of the folder to write.
        image_size: Optional int, the height and width of images. By default those of the model's `input_shape`, where
            they may be left open; `serve_jpeg` then takes `model.image_size` or 224. A known size is faster.
        resize: "crop" or "squash", see `keras_cnv2.load_image`. By default the model's way, if the size is its own.
        top: Int, how many classes to name; at most all.
        input_dtype: "float32" or "uint8", of "images".
        max_pixels: Int, height times width of the largest picture to decode and of the largest image to take.
        exif_orientation: Bool, whether `serve_jpeg` turns pictures as their EXIF data say, see `keras_cnv2.load_image`.
        fold: Bool, whether to fold the model, see `keras_cnv2.fold`; one that is quantized stays as it is.
        overwrite: Bool, whether to replace a SavedModel at `path`.
        class_names: Optional list of strings, one a class. By default the model's, else "class 0" and so on.

    Raises:
        ValueError: If the model is none of these, or an argument is out of range.
        ExportError: If the outputs are not those of the model; the folder is not left behind.
        OSError: If there is something at `path`, or it cannot be written.
    """
    check_backend("A SavedModel")
    from keras_cnv2.export.saved_model.check import check_saved_model
    from keras_cnv2.export.saved_model.classifier import served_module
    from keras_cnv2.export.saved_model.graphs import write

    labels = labels_of(model, class_names)
    with new_folder(path, overwrite) as folder:
        module, signatures = served_module(
            model,
            image_size=image_size,
            resize=resize,
            top=top,
            input_dtype=input_dtype,
            max_pixels=max_pixels,
            exif_orientation=exif_orientation,
            labels=labels,
            folded=fold and not quantized_as(model),
            scratch=folder.parent,
        )
        write(folder, module, signatures, _metadata(model, image_size, resize, labels))
        check_saved_model(folder, model, labels, resize)


def _metadata(model, image_size, resize, labels):
    sides, way = image_sides(model, image_size), None
    if not is_segmenter(model) and not isinstance(model, FCMAE):
        sides, way = pictures_of(model, sides, resize)
    return exported_metadata(model, sides, way, labels)
