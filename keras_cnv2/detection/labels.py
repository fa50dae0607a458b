"""Labels of boxes: checks, and weights of images."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import ops


def check_labels(labels: Mapping[str, Any], classes: int) -> None:
    """Raises a `ValueError` for boxes that are not finite and labels that are no class, such as COCO's ids from 1 on.

    Compiled training steps cannot raise errors: the loss of a detector is NaN for such labels.

    ```python
    for images, labels in dataset:  # before training
        keras_cnv2.detection.check_labels(labels, classes=20)
    ```

    Args:
        labels: Dict of labels as for `fit`. "classes" is an array `(N, B)`; values below 0 are padding. "boxes" is an
            array `(N, B, 4)`.
        classes: Int, the number of classes.

    Raises:
        ValueError: If a label is `classes` or above or NaN, or a box is not finite.
    """
    given = ops.convert_to_numpy(labels["classes"])
    boxes = ops.convert_to_numpy(labels["boxes"])[given >= 0]
    if not np.isfinite(boxes).all():
        wrong = boxes[~np.isfinite(boxes).all(axis=-1)]
        raise ValueError(f"Boxes must be finite. Received: {len(wrong)} that are not, such as {wrong[0].tolist()}")
    wrong = [number.item() for number in np.unique(given) if not number < classes]  # also NaN
    if wrong:
        raise ValueError(
            f"Classes of boxes must be from 0 to {classes - 1}, or below 0 where there is no box. "
            f"Received: {len(wrong)} others, such as {wrong[:5]}"
        )


def are_usable(labels: Mapping[str, Any], classes: int) -> Any:
    """Returns whether all labels of an image are right, bools `(N,)`; see `check_labels` for what is wrong."""
    numbers, boxes = (ops.cast(labels[name], "float32") for name in ("classes", "boxes"))
    is_right = (numbers < classes) & ops.all(ops.isfinite(boxes), axis=-1)
    return ops.all((numbers < 0) | is_right, axis=-1)


def image_weights(sample_weight: Any) -> Any:
    """Returns the `sample_weight` of `fit`, a tensor `(N,)`, as float32 `(N, 1)`; 1.0 if there is none.

    If labels are a dict, Keras makes arrays into a dict with the same weights for each label.
    """
    if sample_weight is None:
        return 1.0
    weights = sample_weight["classes"] if isinstance(sample_weight, Mapping) else sample_weight
    return ops.reshape(ops.cast(weights, "float32"), (-1, 1))
