from collections.abc import Sequence

import keras

from keras_cnv2.arguments import positive_int
from keras_cnv2.models.classifier import check_head
from keras_cnv2.models.stages import total_stride
from keras_cnv2.optional_packages import import_keras_cv

# Name of the last layer of the head, by which `is_deeplab` recognises it.
LOGITS = "logits"


def deeplab_v3_plus(
    backbone: keras.Model,
    classes: int,
    width: int = 256,
    projection_width: int = 48,
    class_names: Sequence[str] | None = None,
) -> keras.Model:
    """Builds KerasCV's DeepLabV3+ on a backbone, with logits at the size of the images.

    ```python
    backbone = keras_cnv2.ConvNeXtV2Backbone("tiny", weights="fcmae_ft_in1k", input_shape=(512, 512, 3))
    model = keras_cnv2.segmentation.deeplab_v3_plus(backbone, classes=21)
    model.compile(optimizer, loss=keras_cnv2.segmentation.PixelCrossentropy())
    ```

    KerasCV's own head returns probabilities. This one returns logits, its last convolution has a bias, and it resizes
    logits rather than features, which takes a fraction of the memory.

    Args:
        backbone: A `keras_cnv2.ConvNeXtV2Backbone` with `stem_stride` 4 and a fixed input size that is a multiple of
            32, or a backbone of KerasCV. Its levels P2 and P5 are used.
        classes: Int, the number of classes. A single class is treated as in `UPerNet`.
        width: Int, the number of channels of the head.
        projection_width: Int, the number of channels to which P2 is projected.
        class_names: Optional list of `classes` strings, stored as an attribute of the model but not saved with it.

    Returns:
        A `keras_cv.models.DeepLabV3Plus` from images `(N, height, width, channels)` to float32 logits
        `(N, height, width, classes)`.

    Raises:
        ValueError: If an argument is out of range, or the backbone lacks the levels or has an unsuitable size.
        ImportError: If KerasCV is not installed.

    Source: DeepLabV3+ (arXiv 1802.02611), section 3.1.
    """
    keras_cv = import_keras_cv("DeepLabV3+")
    check_head(True, classes, None, class_names)
    positive_int("width", width)
    positive_int("projection_width", projection_width)
    _check_backbone(backbone)
    head = keras.Sequential(
        [
            keras.layers.Conv2D(width, 1, use_bias=False, name="segmentation_head_conv"),
            keras.layers.BatchNormalization(name="segmentation_head_norm"),
            keras.layers.ReLU(name="segmentation_head_relu"),
            keras.layers.Conv2D(classes, 1, dtype="float32", name="segmentation_output"),
            keras.layers.UpSampling2D(4, interpolation="bilinear", dtype="float32", name=LOGITS),
        ],
        name="segmentation_head",
    )
    model = keras_cv.models.DeepLabV3Plus(
        backbone=backbone, num_classes=classes, projection_filters=projection_width, segmentation_head=head
    )
    model.class_names = None if class_names is None else tuple(class_names)
    return model


def is_deeplab(model):
    """Whether a model was made by `deeplab_v3_plus`. A DeepLabV3+ with KerasCV's head does not return logits."""
    head = getattr(model, "segmentation_head", None)
    return isinstance(head, keras.Sequential) and head.layers[-1].name == LOGITS


def _check_backbone(backbone):
    """Raises a `ValueError` unless P5 upsampled by 8 has the size of P2, and P2 upsampled by 4 that of the images."""
    levels = getattr(backbone, "pyramid_level_inputs", {})
    if not {"P2", "P5"} <= {*levels}:
        raise ValueError(f"DeepLabV3+ needs the levels P2 and P5 (stem_stride 4). Received: levels {[*levels]}")
    if getattr(backbone, "output_stride", None):
        raise ValueError(
            "DeepLabV3+ resizes P5 by 8, from its own stride: give a backbone without output_stride. "
            f"Received: output_stride={backbone.output_stride}"
        )
    sides = backbone.input_shape[1:3]
    if any(side is None or side % total_stride(4) for side in sides):
        raise ValueError(
            "DeepLabV3+ resizes feature maps by whole factors: give the backbone an input_shape whose height and width "
            f"are multiples of {total_stride(4)}. Received: input_shape={tuple(backbone.input_shape[1:])}"
        )
