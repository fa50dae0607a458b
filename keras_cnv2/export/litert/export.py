"""`export_litert`: export to a file for phones and small devices, for LiteRT (TensorFlow Lite) with XNNPACK."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_cnv2.arguments import positive_int
from keras_cnv2.errors import ExportError
from keras_cnv2.export.litert.check import check_file
from keras_cnv2.export.litert.convert import convert
from keras_cnv2.export.litert.deployed_block import deployable
from keras_cnv2.export.litert.equalize import equalize
from keras_cnv2.export.litert.metadata import write_file
from keras_cnv2.export.litert.representative import as_dtype, batches_of
from keras_cnv2.export.options import Options
from keras_cnv2.export.outputs import with_named_outputs
from keras_cnv2.export.requirements import check_backend, check_float32
from keras_cnv2.files import check_target, replacing
from keras_cnv2.images.header import MAX_PIXELS
from keras_cnv2.images.pictures import Reading

SUFFIX = ".tflite"
QUANTIZATIONS = (None, "float16", "dynamic", "int8")

# Maximum bytes of float32 weights: the limit of a flatbuffer, and of the TensorFlow graph that it is converted from.
LARGEST = 2**31 - 2**20


def export_litert(
    model: keras.Model,
    path: str | os.PathLike,
    quantization: str | None = None,
    representative: Iterable[Any] | None = None,
    image_size: int | None = None,
    batch: int = 1,
    input_dtype: str = "float32",
    resize: str | None = None,
    class_names: Sequence[str] | None = None,
    exif_orientation: bool = True,
    max_pixels: int = MAX_PIXELS,
) -> None:
    """Writes a model as a LiteRT (TensorFlow Lite) file with builtin operations only, delegated to XNNPACK as a whole.

    ```python
    from ai_edge_litert.interpreter import Interpreter

    keras_cnv2.export_litert(model, "model.tflite", quantization="int8", representative=paths_of_photographs)
    run = Interpreter("model.tflite").get_signature_runner()
    run(images=image[None])["probabilities"]
    ```

    The input is "images" `(batch, H, W, C)`, in the model's range. The outputs of a classifier are "probabilities" or
    "logits" `(batch, classes)`, depending on its activation ("scores" for any activation other than softmax, sigmoid
    and linear). The outputs of a backbone are "P2" to "P5"; the output of a classifier without its top is "P5" or, with
    pooling, "pooled". If a model of your own has several outputs, they are named after their layers, or after the keys
    of the dict that the model returns. Outputs are float32.

    The file contains TensorFlow Lite metadata, which describe how to preprocess images, and a zip archive at its end
    with two files: `labels.txt`, the class names, one per line, and `keras_cnv2.json`, which describes this export:
    "image_size" (height and width), "resize", "channels", "mean" and "std" (to normalise images in 0..255 before
    inference), "include_preprocessing" and "quantization". Read them with `zipfile.ZipFile("model.tflite")`.

    Quantization applies to convolutions and dense layers; statistics, GELU and probabilities stay float32. The file is
    run and its outputs are compared with the model's before the file is moved to `path`.

    Args:
        model: A `keras_cnv2.ConvNeXtV2` or `ConvNeXtV2Backbone` in float32, or a functional or sequential model of
            your own that contains one of them. It is not changed.
        path: Path that ends in `.tflite`. An existing file is replaced once the new one is complete.
        quantization: `None` for float32; "float16" for weights of half the size; "dynamic" for int8 weights and int8
            activations with scales computed at run time; "int8" for scales computed from `representative`.
        representative: For "int8": about a hundred images such as the model will see. An iterable of paths of image
            files, images `(H, W, C)` or batches of images in the model's range, or a mix of these. It must be finite.
        image_size: Optional int, the height and width of images in pixels. By default those of the model's
            `input_shape`, else `model.image_size`, else 224.
        batch: Int, the number of images in one run.
        input_dtype: "float32" or "uint8", the dtype of "images"; "uint8" only for models with preprocessing.
        resize: "crop" or "squash", how image files are resized, in calibration and by users of the file, see
            `keras_cnv2.load_image`. By default the model's `resize`, if the image size is the model's own.
        class_names: Optional list of strings, one per class. By default the model's, else "class 0" and so on.
        exif_orientation, max_pixels: How image files in `representative` are read, see `keras_cnv2.load_image`.

    Raises:
        ValueError: If the model is not of a supported kind or takes more than 2 GB, or an argument is out of range.
        ExportError: If the outputs differ from the model's, or ai-edge-litert is missing; no file is left behind.
        OSError: If the file cannot be written, or an image file cannot be read.
    """
    check_backend("A LiteRT file")
    from keras_cnv2.export.kinds.kind import kind_for

    path = Path(path)
    kind = kind_for(model, "litert")(model, Options(image_size, resize, class_names, input_dtype, fixed=True))
    _check(model, path, quantization, representative)
    shape = (positive_int("batch", batch), *kind.images.shape[1:])
    reading = Reading(exif_orientation, max_pixels)
    batches = batches_of(representative, model, shape, resize, reading) if quantization == "int8" else None
    with replacing(path) as temporary:
        named = with_named_outputs(model)
        function, variables = _function(named, shape, input_dtype, batches)
        inputs = [as_dtype(images, input_dtype) for images in batches or ()]
        content = convert(function, variables, quantization, inputs)
        write_file(temporary, content, kind, shape, quantization)
        check_file(temporary, named, model, quantization, batches)


def _check(model, path, quantization, representative):
    check_float32(model)
    parameters = model.count_params()
    if 4 * parameters > LARGEST:
        raise ValueError(
            "The weights of a LiteRT file must take less than 2 GB in float32, from which it is converted. "
            f"Received: a model of {parameters:,} parameters"
        )
    if path.suffix != SUFFIX:
        raise ValueError(f"A LiteRT file's path ends in {SUFFIX}. Received: {str(path)!r}")
    if quantization not in QUANTIZATIONS:
        raise ValueError(f"quantization must be one of {QUANTIZATIONS}. Received: quantization={quantization!r}")
    if (quantization == "int8") != (representative is not None):
        raise ValueError(
            'quantization="int8" needs `representative`, images such as the model will see; without it they must not '
            f"be given. Received: quantization={quantization!r}, representative={_brief(representative)}"
        )
    check_target(path)
    try:
        import ai_edge_litert.interpreter  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f'The exported file is checked with LiteRT: pip install "keras_cnv2[litert]" ({error})'
        ) from error


def _brief(value):
    return value if value is None else f"a {type(value).__name__}"


def _function(named, shape, input_dtype, batches):
    """Returns the function to convert and the variables that it reads, equalized for int8 if batches are given."""
    import tensorflow as tf

    deployed = deployable(named)
    if batches is not None:
        equalize(deployed, batches)

    def run(images):
        return deployed(tf.cast(images, tf.float32), training=False)

    images = tf.TensorSpec(shape, input_dtype, "images")
    function = tf.function(run, input_signature=[images], autograph=False).get_concrete_function()
    return function, [variable.value for variable in deployed.variables]
