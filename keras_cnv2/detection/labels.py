"""Labels of boxes: which class each is of, or that there is none."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import ops


def check_labels(labels: Mapping[str, Any], classes: int) -> None:
    """Raises a `ValueError` for boxes whose number is no class, as COCO's ids, which start from 1, may be.

    Compiled steps cannot raise: the loss of `keras_cnv2.detection.retinanet` is NaN for such labels.

    Args:
        labels: What a RetinaNet is fitted to: "classes" is an array `(N, B)`, below 0 where there is no box.
        classes: Int, the number of classes.
    """
    found = np.unique(ops.convert_to_numpy(labels["classes"]))
    wrong = [number.item() for number in found if number >= classes]
    if wrong:
        raise ValueError(
            f"Classes of boxes must be from 0 to {classes - 1}, or below 0 where there is no box. "
            f"Received: {len(wrong)} others, such as {wrong[:5]}"
        )
