"""`mask_rcnn`: the public function that builds a Mask R-CNN."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_cnv2.detection.two_stage.model import MaskRCNN
from keras_cnv2.detection.two_stage.variant import Variant


def mask_rcnn(
    backbone: keras.Model,
    classes: int,
    masks: bool = True,
    width: int = 256,
    units: int = 1024,
    convs: int = 4,
    class_names: Sequence[str] | None = None,
    image_size: int | None = None,
    variant: str | Variant | Mapping[str, Any] = "mmdetection",
    seed: int | None = None,
    name: str | None = None,
) -> keras.Model:
    """Builds a Mask R-CNN, or a Faster R-CNN, for boxes "xyxy" in pixels.

    ```python
    backbone = keras_cnv2.ConvNeXtV2Backbone("atto", pyramid_norms=True)
    model = keras_cnv2.detection.mask_rcnn(backbone, classes=20)
    model.compile(keras_cnv2.LayerDecayAdamW(1e-4, layer_decay=0.95))
    model.fit(images, {"boxes": boxes, "classes": classes, "masks": masks})
    found = keras_cnv2.detection.Detector(model).predict(images)
    ```

    The loss is the sum of five terms, which are logged one by one: objectness and deltas of the sampled anchors, and
    classes, deltas and masks of the sampled proposals. Each is the mean over the samples of the whole batch, over all
    replicas; the deltas' terms are sums over the matched samples, divided by the number of all samples.

    Labels for `fit`: "boxes" `(N, B, 4)`, "classes" `(N, B)`, below 0 for padding, and "masks" `(N, B, height, width)`,
    above 0 where the object is. It runs on the TensorFlow and JAX backends.

    Args:
        backbone: A functional model with `pyramid_outputs` (level -> tensor) for P2 to P5, such as
            `keras_cnv2.ConvNeXtV2Backbone`, best with `pyramid_norms`.
        classes: Int, the number of classes, without the background. Labels start from 0. A label of `classes` or above
            makes the loss NaN; see `keras_cnv2.detection.check_labels`.
        masks: Bool, whether to predict masks. Without them this is Faster R-CNN.
        width: Int, the number of channels of the pyramid and of the heads' convolutions.
        units: Int, the number of units of the two dense layers of the box head.
        convs: Int, the number of 3x3 convolutions of the mask head.
        class_names: Optional list of `classes` strings, saved with the model.
        image_size: Optional int, the side in pixels of the square images in training, saved with the model. A multiple
            of 32.
        variant: "mmdetection", with which the paper's figures were measured, "torchvision", or
            `keras_cnv2.detection.Variant`: what differs between implementations, and the numbers of proposals and
            samples.
        seed: Optional int for the selection of samples.
        name: Name of the model.

    Call arguments:
        images: Tensor `(N, height, width, channels)`, in the range that the backbone takes. Height and width are static
            and multiples of 32.

    Returns:
        A `keras.Model` that returns the outputs of its first stage, a dict with "boxes" `(N, P, 4)`, the proposals, and
        "levels", "objectness", "deltas", "is_proposal" and "draws", from which the losses and
        `keras_cnv2.detection.Detector` go on.

    Raises:
        ValueError: If an argument is out of range, or the backend of Keras is PyTorch.

    Source: Mask R-CNN (arXiv 1703.06870); Faster R-CNN (arXiv 1506.01497); Feature Pyramid Networks (arXiv 1612.03144).
    """
    return MaskRCNN(
        backbone,
        classes,
        masks=masks,
        width=width,
        units=units,
        convs=convs,
        class_names=class_names,
        image_size=image_size,
        variant=variant,
        seed=seed,
        name=name,
    )
