from typing import Any

import keras
from keras import ops

from keras_cnv2.segmentation.labels import check_shape, is_class, is_ignored


@keras.saving.register_keras_serializable(package="keras_cnv2")
class PixelCrossentropy(keras.losses.Loss):
    """Cross-entropy of every pixel's class, zero where the label says to ignore it.

    The mean runs over all pixels, ignored ones included: so each image counts the same, the loss of a batch does not
    depend on how replicas share it, and an image without any label gives zero.

    A label that is neither a class nor ignored makes the loss NaN; see `keras_cnv2.segmentation.check_labels`.

    Args:
        ignore_label: Int, or `None` to ignore none.
        reduction: Of the images' losses, see `keras.losses.Loss`.
        name: Name of the loss.

    Call arguments:
        y_true: Labels `(N, height, width)`, whole numbers.
        y_pred: Logits `(N, height, width, classes)`.
        sample_weight: Optional, one an image, `(N,)`.

    Returns:
        A scalar; with `reduction=None` the mean of each image, `(N,)`.

    Raises:
        ValueError: If labels have another shape, like one with an axis of channels.

    Source: The loss of mmsegmentation, which the paper's segmentation models were trained with.
    """

    def __init__(
        self,
        ignore_label: int | None = 255,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "pixel_crossentropy",
        dtype: str | keras.DTypePolicy | None = "float32",
    ):
        # float32 holds all labels, which Keras casts to the loss's dtype.
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.ignore_label = ignore_label

    def call(self, y_true: Any, y_pred: Any) -> Any:
        labels = ops.cast(y_true, "int32")
        check_shape(labels, y_pred.shape[:-1])
        known = is_class(labels, y_pred.shape[-1])
        ignored = is_ignored(labels, self.ignore_label)
        losses = ops.sparse_categorical_crossentropy(ops.where(known, labels, 0), y_pred, from_logits=True)
        losses = ops.where(ignored, 0.0, ops.where(known, losses, float("nan")))
        return ops.mean(losses, axis=(1, 2))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "ignore_label": self.ignore_label, "dtype": self.dtype}
