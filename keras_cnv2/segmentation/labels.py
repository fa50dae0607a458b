"""Labels of pixels: each is a class, or a value that is ignored.

With one class, label 1 is the class and label 0 the background.
"""

from typing import Any

import numpy as np
from keras import ops


def labels_of(classes):
    """Returns the number of labels for a head of `classes` classes: one more if there is a single class."""
    return max(classes, 2)


def of_each_label(logits):
    """Converts logits of classes `(..., classes)` to logits of labels `(..., labels)`.

    They differ for a single class only: its sigmoid is the softmax of its logit and a zero for the background.
    """
    return ops.concatenate([ops.zeros_like(logits), logits], axis=-1) if logits.shape[-1] == 1 else logits


def check_labels(labels: Any, classes: int, ignore_label: int | None = 255) -> None:
    """Raises a `ValueError` for labels that are neither a class nor ignored.

    Compiled losses and metrics cannot raise errors: `PixelCrossentropy` and `ConfusionMatrix` return NaN for such
    labels.

    ```python
    for images, labels in dataset:  # before training
        keras_cnv2.segmentation.check_labels(labels, classes=150)
    ```

    Args:
        labels: Integer array of any shape.
        classes: Int, the number of classes. With one class, labels are 0 (background) and 1.
        ignore_label: Int, the label of pixels to ignore, or `None`.

    Raises:
        ValueError: If there is any other label.
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
    """Raises a `ValueError` unless labels have the shape of predictions. Unknown dimensions are not compared.

    Args:
        labels: Tensor of labels.
        predicted: Shape of the predictions, `(N, height, width)`.
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
    """Returns a boolean tensor: where int labels are classes."""
    return ops.logical_and(labels >= 0, labels < classes)


def is_ignored(labels, ignore_label):
    """Returns a boolean tensor: where int labels are to be ignored."""
    return ops.zeros_like(labels, dtype="bool") if ignore_label is None else ops.equal(labels, ignore_label)
