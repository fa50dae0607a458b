"""`retinanet`: the function that users call. It imports KerasCV, and with it the class, when it is called."""

from collections.abc import Sequence

import keras

from keras_cnv2.detection.anchors import SIZES
from keras_cnv2.optional_packages import import_keras_cv


def retinanet(
    backbone: keras.Model,
    classes: int,
    width: int = 256,
    convs: int = 4,
    class_names: Sequence[str] | None = None,
    anchor_sizes: Sequence[float] = SIZES,
    low_quality_matches: bool = True,
    name: str | None = None,
) -> keras.Model:
    """RetinaNet on a ConvNeXt V2: a `keras_cv.models.RetinaNet` for boxes "xyxy" in pixels.

    ```python
    backbone = keras_cnv2.ConvNeXtV2Backbone("tiny", weights="fcmae_ft_in22k_in1k", pyramid_norms=True)
    model = keras_cnv2.detection.retinanet(backbone, classes=20)
    model.compile(keras_cnv2.LayerDecayAdamW(1e-4, layer_decay=0.9))
    model.fit(images, {"boxes": boxes, "classes": classes})
    found = keras_cnv2.detection.Detector(model).predict(images)
    ```

    The loss is the sum of the focal loss over all anchors and classes and of the smooth L1 loss of the deltas (the mean
    of an anchor's four), over the number of anchors that have a box: of the whole batch, on all replicas.

    Images have sides that are multiples of 32.

    Args:
        backbone: `keras_cnv2.ConvNeXtV2Backbone`, best with `pyramid_norms`; or any functional Keras model with
            `pyramid_level_inputs` (level -> layer name) for P3 to P5.
        classes: Int, the number of classes; the background is none. Labels number them from 0; a number from `classes`
            on, as COCO's ids have, makes the loss NaN: see `keras_cnv2.detection.check_labels`.
        width: Int, the channels of pyramid and heads.
        convs: Int, the convolutions of each head before its prediction.
        class_names: Optional list of `classes` strings, kept with the model.
        anchor_sizes: Five positive numbers, the side of the smallest square anchor of P3 to P7, in pixels.
        low_quality_matches: Bool, whether every box gets the anchors that overlap it most, however little.
        name: Name of the model.

    Call arguments:
        images: Tensor `(N, height, width, channels)`, as the backbone takes them.

    Returns:
        {"box": deltas `(N, A, 4)`, "classification": logits `(N, A, classes)`} of all anchors, float32.
        `keras_cnv2.detection.Detector` makes detections of them.

    Raises:
        ValueError: If an argument is out of range, or Keras has another backend than TensorFlow.
        ImportError: If KerasCV is not installed.

    Source: Focal Loss for Dense Object Detection (arXiv 1708.02002), section 4.
    """
    require_keras_cv()
    from keras_cnv2.detection.model import RetinaNet

    return RetinaNet(
        backbone,
        classes,
        width=width,
        convs=convs,
        class_names=class_names,
        anchor_sizes=anchor_sizes,
        low_quality_matches=low_quality_matches,
        name=name,
    )


def require_keras_cv():
    """Raises an error that says what to do where detection cannot work."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "Detection works with TensorFlow as the backend of Keras: set KERAS_BACKEND=tensorflow. "
            f"Received: backend={keras.backend.backend()!r}"
        )
    import_keras_cv("RetinaNet")


@keras.saving.register_keras_serializable(package="keras_cnv2", name="RetinaNet")
class RetinaNetOnDemand:
    """Stands for the class in files until that is imported: loading a `.keras` file does it."""

    @classmethod
    def from_config(cls, config, custom_objects=None):
        require_keras_cv()
        from keras_cnv2.detection.model import RetinaNet

        return RetinaNet.from_config(config, custom_objects)

    def get_config(self):
        return {}
