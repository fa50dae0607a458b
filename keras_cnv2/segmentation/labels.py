"""Labels of pixels: which class each is of, or that it is to be ignored.

A head of one class tells its class, label 1, from all else, label 0.
"""

from typing import Any

import numpy as np
from keras import ops


def labels_of(classes):
    """How many labels pixels may have that a head of so many classes was trained for."""
    return max(classes, 2)


def of_each_label(logits):
    """Logits `(..., classes)` as those of all labels `(..., labels)`.

    The sigmoid of one class is the softmax of its logit and a zero, for all else.
    """
    return ops.concatenate([ops.zeros_like(logits), logits], axis=-1) if logits.shape[-1] == 1 else logits


def check_labels(labels: Any, classes: int, ignore_label: int | None = 255) -> None:
    """Raises a `ValueError` for labels that are neither a class nor ignored.

    Compiled losses and metrics cannot raise: `PixelCrossentropy` and `ConfusionMatrix` give NaN for such labels.

    Args:
        labels: Integer array of any shape.
        classes: Int, the number of classes. Of one class, labels are 0, for all else, and 1.
        ignore_label: Int, or `None`.
    """
    count = labels_of(classes)
    found = np.unique(ops.convert_to_numpy(labels))
    wrong = [label.item() for label in found if label != ignore_label and not 0 <= label < count]
    if wrong:
        raise ValueError(
            f"Labels must be from 0 to {count - 1}, or ignore_label={ignore_label}. "
            f"Received: {len(wrong)} others, such as {wrong[:5]}"
        )


def check_shape(labels, predicted):
    """Raises a `ValueError` unless labels lie on predictions, as far as their sides are known.

    Args:
        labels: Tensor.
        predicted: The shape of predictions, `(N, height, width)`.
    """
    received, predicted = tuple(labels.shape), tuple(predicted)
    fits = len(received) == len(predicted) and all(
        None in sides or sides[0] == sides[1] for sides in zip(received, predicted)
    )
    if not fits:
        raise ValueError(
            f"labels must have the shape (N, height, width) of the predictions, {predicted}, without an axis of "
            f"channels. Received: labels of shape {received}"
        )


def is_class(labels, classes):
    """Where int labels are classes, a boolean tensor."""
    return ops.logical_and(labels >= 0, labels < classes)


def is_ignored(labels, ignore_label):
    """Where int labels are to be ignored, a boolean tensor."""
    return ops.zeros_like(labels, dtype="bool") if ignore_label is None else ops.equal(labels, ignore_label)
