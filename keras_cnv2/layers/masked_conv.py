from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_cnv2.kernels import cpu, depthwise


def hide(x, hidden):
    """Sets the masked positions of `x` `(N, H, W, C)`, finite numbers, to zero; `hidden` `(N, H, W)` is 1 there."""
    # `where` would also replace NaN, but a training step on a CPU takes 3 % longer with it.
    visible = 1 - ops.cast(hidden, x.dtype)
    return x * ops.expand_dims(visible, -1)


@keras.saving.register_keras_serializable(package="keras_cnv2")
class MaskedDepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """Depthwise convolution that neither reads nor writes masked positions.

    With a mask, masked positions are set to zero in the input and in the output. The numbers are those of a submanifold
    sparse convolution over the visible positions. Without a mask, the layer is a plain `keras.layers.DepthwiseConv2D`
    with stride 1 and padding "same". It takes the arguments of that layer.

    ```python
    conv = keras_cnv2.MaskedDepthwiseConv2D(7)
    x = keras.random.normal((2, 56, 56, 40))
    hidden = keras.random.uniform((2, 56, 56)) < 0.6
    y = conv(x, hidden)  # (2, 56, 56, 40), zero where masked
    ```

    Args:
        kernel_size: Int or (height, width).
        **kwargs: As in `keras.layers.DepthwiseConv2D`. `strides` must be 1 (a mask has the resolution of the
            input), `padding` "same" and `data_format` "channels_last".

    Call arguments:
        x: Float tensor of shape `(N, H, W, C)`, finite where masked.
        hidden: Optional mask, a tensor of shape `(N, H, W)` of any dtype: 1 where masked and 0 where visible.
        patches: Optional `keras_cnv2.fcmae.masking.VisiblePatches` instead of `hidden`. Then `x` and the output hold
            only the visible patches, as small images `(N * V, p, p, C)`. The numbers are the same.
        training: Bool. When training on a CPU, gradients are computed by `keras_cnv2.kernels.depthwise.convolve`.

    Returns:
        A tensor of shape `(N, H, W, C * depth_multiplier)`, zero where masked.

    Raises:
        ValueError: If `strides`, `padding` or `data_format` has another value, or the shapes of `x` and `hidden` do not
            match.

    Source: ConvNeXt V2 (arXiv 2301.00808), section 3.1 and appendix A.2.
    """

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        *,
        strides: int | Sequence[int] = 1,
        padding: str = "same",
        data_format: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(kernel_size, strides=strides, padding=padding, data_format=data_format, **kwargs)
        if self.strides != (1, 1) or self.padding != "same" or self.data_format != "channels_last":
            raise ValueError(
                'MaskedDepthwiseConv2D works with strides=1, padding="same" and data_format="channels_last" only. '
                f"Received: strides={strides!r}, padding={padding!r}, data_format={self.data_format!r}"
            )

    def build(self, x_shape: Sequence[int | None], hidden_shape: Sequence[int | None] | None = None) -> None:
        super().build(x_shape)

    def call(self, x: Any, hidden: Any = None, patches: Any = None, training: bool | None = None) -> Any:
        fast = training and self._has_fast_gradients()
        if patches is not None:
            return self._fast_in_patches(x, patches) if fast else patches.gather(super().call(patches.scatter(x)))
        if hidden is not None:
            check_hidden(x.shape, hidden.shape)
            return hide(self.call(hide(x, hidden), training=training), hidden)
        return self._fast(x) if fast else super().call(x)

    def _has_fast_gradients(self):
        height, width = self.kernel_size
        square_and_odd = height == width and height % 2 == 1
        plain = self.dilation_rate in (1, (1, 1)) and self.depth_multiplier == 1 and self.use_bias
        return square_and_odd and plain and cpu.trains_fast(self.compute_dtype)

    def _fast(self, x, **layout):
        weights = ops.convert_to_tensor(self.kernel), ops.convert_to_tensor(self.bias)
        return self.activation(depthwise.convolve(x, *weights, **layout))

    def _fast_in_patches(self, x, patches):
        reach = self.kernel_size[0] // 2
        if x.shape[1] <= 2 * reach:  # a border around each patch would cost more than the whole grid does
            return self._fast(x, spread=patches.scatter, collect=patches.gather)
        return self._fast(x, spread=lambda x: patches.surround(x, reach), centre=lambda x: x)

    def compute_output_shape(
        self, x_shape: Sequence[int | None], hidden_shape: Sequence[int | None] | None = None
    ) -> Sequence[int | None]:
        check_hidden(x_shape, hidden_shape)
        return super().compute_output_shape(x_shape)


def check_hidden(x_shape, hidden_shape):
    """Raises a `ValueError` if `hidden` is given and differs from `x` in batch size, height or width."""
    if hidden_shape is None:
        return
    expected, received = tuple(x_shape[:-1]), tuple(hidden_shape)
    fits = len(expected) == len(received) and all(
        None in pair or pair[0] == pair[1] for pair in zip(expected, received)
    )
    if not fits:
        raise ValueError(
            f"hidden must have the shape (N, H, W) of inputs (N, H, W, C), here {expected}. Received: shape {received}"
        )
