from typing import Any

import keras
from keras import ops

from keras_cnv2.segmentation.labels import check_shape, is_class, is_ignored, of_each_label


@keras.saving.register_keras_serializable(package="keras_cnv2")
class PixelCrossentropy(keras.losses.Loss):
    """Mean cross-entropy of all pixels, where the loss of ignored pixels is zero.

    The mean is taken over all pixels, including ignored ones. Therefore each image has the same weight, the loss of a
    batch does not depend on its distribution over replicas, and an image without labelled pixels has a loss of zero.

    With one class, the logits are those of a sigmoid: label 1 is the class, label 0 the background.

    A label that is neither a class nor ignored makes the loss NaN; see `keras_cnv2.segmentation.check_labels`.

    ```python
    loss = keras_cnv2.segmentation.PixelCrossentropy(ignore_label=255)
    labels = np.array([[[0, 1], [2, 255]]])  # (1, 2, 2)
    loss(labels, np.zeros((1, 2, 2, 3)))  # 0.82396, which is log(3) * 3/4: one of four pixels is ignored
    model.compile("adam", loss=loss)
    ```

    Args:
        ignore_label: Int, the label of pixels to ignore, or `None` to ignore none.
        reduction: How the losses of the images are reduced, see `keras.losses.Loss`.
        name: Name of the loss.
        dtype: Dtype in which the loss is computed.

    Call arguments:
        y_true: Labels `(N, height, width)`, whole numbers.
        y_pred: Logits `(N, height, width, classes)`.
        sample_weight: Optional, one weight per image, `(N,)` or `(N, 1)`, or a scalar.

    Returns:
        A scalar; with `reduction=None` the mean of each image, `(N,)`.

    Raises:
        ValueError: If labels have another shape, for example with a channel axis, or there is not one weight per image.

    Source: The loss of mmsegmentation, with which the paper's segmentation models were trained.
    """

    def __init__(
        self,
        ignore_label: int | None = 255,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "pixel_crossentropy",
        dtype: str | keras.DTypePolicy | None = "float32",
    ):
        # Keras casts labels to the dtype of the loss; float32 represents all of them exactly.
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.ignore_label = ignore_label

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        if sample_weight is not None:
            check_weights(sample_weight, ops.convert_to_tensor(y_pred).shape[0])
        return super().__call__(y_true, y_pred, sample_weight)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        labels = ops.cast(y_true, "int32")
        check_shape(labels, y_pred.shape[:-1])
        y_pred = of_each_label(y_pred)
        known = is_class(labels, y_pred.shape[-1])
        ignored = is_ignored(labels, self.ignore_label)
        losses = ops.sparse_categorical_crossentropy(ops.where(known, labels, 0), y_pred, from_logits=True)
        losses = ops.where(ignored, 0.0, ops.where(known, losses, float("nan")))
        return ops.mean(losses, axis=(1, 2))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "ignore_label": self.ignore_label, "dtype": self.dtype}


def check_weights(weights, count):
    """Raises a `ValueError` unless there is one weight per image. Unknown dimensions are not compared.

    Keras would broadcast weights of other shapes over the losses of the images. It would even accept weights of pixels
    if the sides of the images equal the batch size.

    Args:
        weights: Array, tensor or number.
        count: Number of images, or `None` if it is unknown.
    """
    shape = ops.convert_to_tensor(weights).shape
    if getattr(shape, "rank", 0) is None:  # unknown rank in a TensorFlow graph
        return
    sizes = tuple(shape)
    is_one_each = len(sizes) == 1 or (len(sizes) == 2 and sizes[1] in (1, None))
    if sizes and not (is_one_each and (None in (sizes[0], count) or sizes[0] == count)):
        raise ValueError(
            f"sample_weight must be one number per image, of shape (N,) or (N, 1), N = {count}; to ignore single "
            f"pixels, give them the label `ignore_label`. Received: sample_weight of shape {sizes}"
        )
