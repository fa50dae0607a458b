from typing import Any

import keras
import numpy as np
from keras import ops

from keras_cnv2.arguments import positive_int
from keras_cnv2.segmentation.labels import check_shape, is_class, is_ignored, labels_of, of_each_label
from keras_cnv2.segmentation.loss import check_weights

# Counts are stored as `high * 2**20 + low`. This keeps them exact up to 2**51 in 32-bit integers, which all backends
# have, and the low parts of two thousand replicas can be added without overflow.
BITS = 20


@keras.saving.register_keras_serializable(package="keras_cnv2")
class ConfusionMatrix(keras.metrics.Metric):
    """Confusion matrix of the classes of pixels, whose result is the mean IoU.

    The intersection over union of a class is `TP / (TP + FP + FN)` over all pixels seen so far. The mean is taken over
    the classes that occur in labels or predictions. Counts are exact integers.

    Labels and predictions that are neither a class nor ignored are counted separately. If there are any, the result is
    NaN and `scores()` raises an error; see `keras_cnv2.segmentation.check_labels`.

    ```python
    metric = keras_cnv2.segmentation.ConfusionMatrix(classes=2)
    metric.update_state(np.array([[[0, 1], [1, 1]]]), np.array([[[0, 0], [1, 1]]]))
    metric.result()  # 0.58333, the mean of 1/2 and 2/3
    metric.scores()["pixel_accuracy"]  # 0.75
    ```

    Args:
        classes: Int, the number of classes. A single class is counted as two: label 0, the background, and label 1.
        ignore_label: Int, the label of pixels to ignore, or `None`.
        name: Name of the metric.
        dtype: Dtype policy of the metric.

    Call arguments:
        y_true: Labels `(N, height, width)`, whole numbers.
        y_pred: Logits or probabilities `(N, height, width, classes)`, for a single class logits; or classes
            `(N, height, width)`.
        sample_weight: Optional, one weight per image, `(N,)` or `(N, 1)`, or a scalar. Images of weight 0 are not
            counted, all others are counted once.

    Returns:
        The mean IoU, a float32 scalar; NaN before the first pixel.

    Raises:
        ValueError: If labels and predictions differ in shape, for example because of a channel axis, or there is not
            one weight per image.

    Source: Fully Convolutional Networks (arXiv 1411.4038), section 5, "Metrics".
    """

    def __init__(
        self,
        classes: int,
        ignore_label: int | None = 255,
        name: str | None = "mean_iou",
        dtype: str | keras.DTypePolicy | None = None,
    ):
        super().__init__(name=name, dtype=dtype)
        self.classes = positive_int("classes", classes)
        self.ignore_label = ignore_label
        self._labels = labels_of(self.classes)
        cells = (self._labels**2 + 1,)  # the last cell counts labels and predictions that are not classes
        self.low, self.high = (self.add_variable(cells, "zeros", "int32", name=half) for half in ("low", "high"))

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        labels, y_pred = ops.cast(y_true, "int32"), ops.convert_to_tensor(y_pred)
        predicted = ops.cast(ops.argmax(of_each_label(y_pred), axis=-1) if len(y_pred.shape) == 4 else y_pred, "int32")
        check_shape(labels, predicted.shape)
        counted = ops.logical_not(is_ignored(labels, self.ignore_label))
        if sample_weight is not None:
            check_weights(sample_weight, labels.shape[0])
            counted = ops.logical_and(counted, ops.reshape(ops.not_equal(sample_weight, 0), (-1, 1, 1)))
        known = ops.logical_and(is_class(labels, self._labels), is_class(predicted, self._labels))
        cells = ops.where(known, labels * self._labels + predicted, self._labels**2)
        counts = ops.segment_sum(
            ops.reshape(ops.cast(counted, "int32"), (-1,)), ops.reshape(cells, (-1,)), self._labels**2 + 1
        )
        low = self.low + counts
        self.high.assign(self.high + ops.right_shift(low, BITS))
        self.low.assign(ops.bitwise_and(low, 2**BITS - 1))

    def result(self) -> Any:
        counts = ops.cast(self.high, "float32") * 2**BITS + ops.cast(self.low, "float32")
        matrix = ops.reshape(counts[:-1], (self._labels, self._labels))
        right = ops.diagonal(matrix)
        union = ops.sum(matrix, axis=0) + ops.sum(matrix, axis=1) - right
        iou = right / ops.maximum(union, 1)
        seen = ops.sum(ops.cast(union > 0, "float32"))
        mean = ops.sum(iou) / ops.maximum(seen, 1)
        return ops.where(ops.logical_and(seen > 0, counts[-1] == 0), mean, float("nan"))

    def matrix(self) -> np.ndarray:
        """Returns the confusion matrix: one row per label, one column per predicted class.

        Returns:
            An int64 NumPy array `(classes, classes)`; `(2, 2)` for a single class.

        Raises:
            ValueError: If there were labels or predictions that are not classes.
        """
        low, high = (ops.convert_to_numpy(half).astype("int64") for half in (self.low, self.high))
        *counts, others = (high << BITS) + low
        if others:
            raise ValueError(
                f"Labels and predictions must be from 0 to {self._labels - 1}; a label may also be "
                f"ignore_label={self.ignore_label}. Received: {others} pixels with other values"
            )
        return np.reshape(counts, (self._labels, self._labels))

    def scores(self) -> dict[str, Any]:
        """Computes the usual scores of semantic segmentation.

        Returns:
            Dict of "mean_iou", the mean IoU over the classes that occur; "pixel_accuracy", the fraction of correct
            pixels; "mean_accuracy", the mean of the accuracies of the classes that occur in labels; and "iou", a list
            of one IoU per class. Scores that are undefined, like the IoU of a class that does not occur, are `None`.

        Raises:
            ValueError: If there were labels or predictions that are not classes.
        """
        matrix = self.matrix()
        right, labelled, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
        iou = _ratios(right, labelled + predicted - right)
        return {
            "mean_iou": _mean(iou),
            "pixel_accuracy": _ratios([right.sum()], [matrix.sum()])[0],
            "mean_accuracy": _mean(_ratios(right, labelled)),
            "iou": iou,
        }

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "classes": self.classes, "ignore_label": self.ignore_label}


def _ratios(parts, wholes):
    return [float(part / whole) if whole else None for part, whole in zip(parts, wholes)]


def _mean(values):
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
