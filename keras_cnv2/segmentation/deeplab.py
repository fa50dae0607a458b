from collections.abc import Sequence

import keras

from keras_cnv2.arguments import positive_int
from keras_cnv2.models.classifier import check_head
from keras_cnv2.models.stages import total_stride
from keras_cnv2.optional_packages import import_keras_cv

# Its last layer.
LOGITS = "logits"


def deeplab_v3_plus(
    backbone: keras.Model,
    classes: int,
    width: int = 256,
    projection_width: int = 48,
    class_names: Sequence[str] | None = None,
) -> keras.Model:
    """KerasCV's DeepLabV3+ on a backbone, with logits of the images' size.

    ```python
    backbone = keras_cnv2.ConvNeXtV2Backbone("tiny", weights="fcmae_ft_in1k", input_shape=(512, 512, 3))
    model = keras_cnv2.segmentation.deeplab_v3_plus(backbone, classes=21)
    model.compile(optimizer, loss=keras_cnv2.segmentation.PixelCrossentropy())
    ```

    KerasCV's own head ends in probabilities; this one is the same up to there, with a bias, and resizes logits rather
    than features, which costs a fraction of the memory.

    Args:
        backbone: A `keras_cnv2.ConvNeXtV2Backbone` with `stem_stride` 4 and a fixed input size that 32 divides, or a
            backbone of KerasCV. Its levels P2 and P5 are used.
        classes: Int, the number of classes; one as in `UPerNet`.
        width: Int, the channels of the head.
        projection_width: Int, the channels that P2 is projected to.
        class_names: Optional list of `classes` strings, kept with the model while it is in memory.

    Returns:
        A `keras_cv.models.DeepLabV3Plus`: images `(N, height, width, channels)` to float32 logits
        `(N, height, width, classes)`.

    Raises:
        ValueError: If an argument is out of range, or the backbone's levels or size do not fit.
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
    """Whether a model came from `deeplab_v3_plus`, rather than with KerasCV's head, which has no logits."""
    head = getattr(model, "segmentation_head", None)
    return isinstance(head, keras.Sequential) and head.layers[-1].name == LOGITS


def _check_backbone(backbone):
    """Raises a `ValueError` unless P5, eight times larger, lies on P2, and P2, four times larger, on the images."""
    levels = getattr(backbone, "pyramid_level_inputs", {})
    if not {"P2", "P5"} <= {*levels}:
        raise ValueError(f"DeepLabV3+ needs the levels P2 and P5 (stem_stride 4). Received: levels {[*levels]}")
    sides = backbone.input_shape[1:3]
    if any(side is None or side % total_stride(4) for side in sides):
        raise ValueError(
            "DeepLabV3+ enlarges maps by whole factors: give the backbone an input_shape whose height and width 32 "
            f"divides. Received: input_shape={tuple(backbone.input_shape[1:])}"
        )
