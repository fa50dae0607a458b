"""`retinanet`: the public function that builds a RetinaNet. It imports KerasCV and the class only when called."""

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
    image_size: int | None = None,
    name: str | None = None,
) -> keras.Model:
    """Builds a RetinaNet on a ConvNeXt V2 backbone: a `keras_cv.models.RetinaNet` for boxes "xyxy" in pixels.

    ```python
    backbone = keras_cnv2.ConvNeXtV2Backbone("tiny", weights="fcmae_ft_in22k_in1k", pyramid_norms=True)
    model = keras_cnv2.detection.retinanet(backbone, classes=20)
    model.compile(keras_cnv2.LayerDecayAdamW(1e-4, layer_decay=0.9))
    model.fit(images, {"boxes": boxes, "classes": classes})
    found = keras_cnv2.detection.Detector(model).predict(images)
    ```

    The loss is the sum of two terms: the focal loss, summed over all anchors and classes, and the smooth L1 loss of the
    deltas, summed over the matched anchors (the mean of the four deltas of each). Both are divided by the number of
    matched anchors in the whole batch, over all replicas.

    The sides of images must be multiples of 32.

    Args:
        backbone: `keras_cnv2.ConvNeXtV2Backbone`, best with `pyramid_norms`; or any functional Keras model with
            `pyramid_level_inputs` (level -> layer name) for P3 to P5.
        classes: Int, the number of classes, without the background. Labels start from 0. A label of `classes` or above,
            as in COCO's ids, makes the loss NaN; see `keras_cnv2.detection.check_labels`.
        width: Int, the number of channels of the pyramid and the heads.
        convs: Int, the number of convolutions of each head before the predicting one.
        class_names: Optional list of `classes` strings, saved with the model.
        anchor_sizes: Five positive numbers, the sides of the smallest square anchors of P3 to P7, in pixels.
        low_quality_matches: Bool, whether each box is matched to the anchors that overlap it most, even if the overlap
            is small.
        image_size: Optional int, the side in pixels of the square images into which prediction and the exports fit
            image files, saved with the model: the size of the images in training. A multiple of 32.
        name: Name of the model.

    Call arguments:
        images: Tensor `(N, height, width, channels)`, in the range that the backbone takes.

    Returns:
        A model that returns {"box": deltas `(N, A, 4)`, "classification": logits `(N, A, classes)`} of all anchors,
        float32. `keras_cnv2.detection.Detector` turns them into detections.

    Raises:
        ValueError: If an argument is out of range, or the backend of Keras is not TensorFlow.
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
        image_size=image_size,
        name=name,
    )


def require_keras_cv():
    """Raises an error if the backend is not TensorFlow or KerasCV is not installed."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "Detection works with TensorFlow as the backend of Keras: set KERAS_BACKEND=tensorflow. "
            f"Received: backend={keras.backend.backend()!r}"
        )
    import_keras_cv("RetinaNet")


@keras.saving.register_keras_serializable(package="keras_cnv2", name="RetinaNet")
class RetinaNetOnDemand:
    """Registered under the name of the class `RetinaNet` until that is imported, so that `.keras` files can be loaded.

    Its `from_config` imports the class, and with it KerasCV.
    """

    @classmethod
    def from_config(cls, config, custom_objects=None):
        require_keras_cv()
        from keras_cnv2.detection.model import RetinaNet

        return RetinaNet.from_config(config, custom_objects)

    def get_config(self):
        return {}
