from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_cnv2.kernels.fused import TINY


@keras.saving.register_keras_serializable(package="keras_cnv2")
class GRN(keras.layers.Layer):
    """Global Response Normalization: channels compete for the response of the whole image.

    For `x` of shape `(N, H, W, C)`, for each image:

    ```
    g = sqrt(sum(x ** 2 over H, W))             # (N, 1, 1, C) aggregation
    n = g / (mean(g over C) + epsilon)          # (N, 1, 1, C) normalization
    y = gamma * (x * n) + beta + x              # calibration, with a residual
    ```

    With any dtype policy, the statistics and the calibration are computed in float32 or higher precision: in float16
    the sum of squares overflows at an activation of 260.

    Positions with zeros add nothing to the statistics. So a masked image gives the same `n` as its visible positions
    alone, in any layout.

    A Keras mask, such as that of padded sequences, is passed on but not used: values in the padding count, unless they
    are zero.

    ```python
    x = keras.random.normal((2, 14, 14, 160))
    y = keras_cnv2.GRN()(x)  # (2, 14, 14, 160), equal to x until gamma and beta are trained
    ```

    Args:
        epsilon: Small positive float, added to the mean response.

    Call arguments:
        x: Float tensor of shape `(N, ..., C)`, rank 3 or more; statistics run over all axes but the first and last.

    Returns:
        A tensor of the shape of `x`, in the compute dtype.

    Raises:
        ValueError: If the rank is below 3 or the number of channels is unknown.

    Source: ConvNeXt V2 (arXiv 2301.00808), section 3.2, equations 1 to 3, algorithm 1. The divisor is the mean, as in
        the algorithm; equation 2 in the text has the sum.
    """

    def __init__(self, epsilon: float = 1e-6, **kwargs: Any):
        super().__init__(**kwargs)
        self.epsilon = epsilon
        self.supports_masking = True

    def build(self, input_shape: Sequence[int | None]) -> None:
        if len(input_shape) < 3 or input_shape[-1] is None:
            raise ValueError(
                "GRN needs inputs of shape (N, ..., C) with at least one axis between images and channels, and "
                f"known channels. Received: input_shape={tuple(input_shape)}"
            )
        # autocast=False: rounding the weights to half precision would undo the float32 arithmetic below.
        shape = (input_shape[-1],)
        self.gamma = self.add_weight(name="gamma", shape=shape, initializer="zeros", autocast=False)
        self.beta = self.add_weight(name="beta", shape=shape, initializer="zeros", autocast=False)

    def call(self, x: Any) -> Any:
        dtype = keras.backend.result_type(x.dtype, "float32")
        x = ops.cast(x, dtype)
        gamma, beta = ops.cast(self.gamma, dtype), ops.cast(self.beta, dtype)
        space = tuple(range(1, len(x.shape) - 1))
        g = ops.sqrt(ops.sum(ops.square(x), axis=space, keepdims=True) + TINY)
        n = g / (ops.mean(g, axis=-1, keepdims=True) + self.epsilon)
        y = x * (gamma * n + 1) + beta
        return ops.cast(y, self.compute_dtype)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Sequence[int | None]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon": self.epsilon}
