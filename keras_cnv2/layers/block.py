from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import keras
from keras import ops

from keras_cnv2.arguments import fraction, positive_int
from keras_cnv2.keras_internals import direct_layers
from keras_cnv2.kernels import fused
from keras_cnv2.layers.drop_path import DropPath
from keras_cnv2.layers.grn import GRN
from keras_cnv2.layers.layer_norm import LayerNorm
from keras_cnv2.layers.masked_conv import MaskedDepthwiseConv2D, check_hidden, hide
from keras_cnv2.layers.settings import SETTINGS, policy_at, restore_flags, restore_weights, settings_of


def kernel_initializer(scale=1.0):
    """Returns the initializer of all kernels: normal, std `0.02 * scale`. Each call's initializer has its own seed."""
    return keras.initializers.RandomNormal(stddev=0.02 * scale)


@keras.saving.register_keras_serializable(package="keras_cnv2")
class ConvNeXtV2Block(keras.layers.Layer):
    """One residual block of ConvNeXt V2.

    Depthwise 7x7 -> LayerNorm -> dense C to 4C -> GELU (exact) -> GRN -> dense 4C to C -> drop path -> add the input.

    With a mask, masked positions count as zero in every layer that mixes positions, GRN's statistics are computed over
    the visible positions of each image, and the output is zero where masked.

    ```python
    block = keras_cnv2.ConvNeXtV2Block(40, drop_path_rate=0.1)
    x = keras.random.normal((2, 56, 56, 40))
    y = block(x, training=True)  # (2, 56, 56, 40)
    hidden = keras.random.uniform((2, 56, 56)) < 0.6
    y = block(x, hidden)  # (2, 56, 56, 40), zero where masked
    ```

    Args:
        dim: Int, the number of channels C.
        drop_path_rate: Float in `[0, 1)`, the probability that a sample skips the block while training.
        dilation: Int, the dilation rate of the depthwise convolution.
        remat: Bool, whether activations are recomputed for the gradients instead of stored (gradient checkpointing).
            Drop path is not recomputed, since it would draw other random numbers. The attribute can also be set later.

    Call arguments:
        x: Float tensor of shape `(N, H, W, C)`, finite where masked.
        hidden: Optional mask, a tensor of shape `(N, H, W)` of any dtype: 1 where masked and 0 where visible.
        training: Bool, whether to drop paths.

    Returns:
        A tensor of the shape of `x`.

    Raises:
        ValueError: If `dim` or `dilation` is not a positive int, `drop_path_rate` is outside `[0, 1)`, the input has
            another number of channels, or `hidden` differs from the input in batch size, height or width.

    Source: ConvNeXt V2 (arXiv 2301.00808), section 3.2, figure 5.
    """

    def __init__(self, dim: int, drop_path_rate: float = 0.0, remat: bool = False, dilation: int = 1, **kwargs: Any):
        super().__init__(**kwargs)
        self.dim = dim = positive_int("dim", dim)
        self.drop_path_rate = drop_path_rate = fraction("drop_path_rate", drop_path_rate)
        self.remat = remat
        self.dilation = positive_int("dilation", dilation)
        self._settings: dict[str, Any] = {}  # settings of the inner layers, applied when they are built
        dtype = self.dtype_policy
        self.dwconv = MaskedDepthwiseConv2D(
            7,
            depthwise_initializer=kernel_initializer(),
            dilation_rate=self.dilation,
            data_format="channels_last",
            dtype=dtype,
            name="dwconv",
        )
        self.norm = LayerNorm(dtype=dtype, name="norm")
        self.pwconv1 = keras.layers.Dense(4 * dim, kernel_initializer=kernel_initializer(), dtype=dtype, name="pwconv1")
        self.grn = GRN(dtype=dtype, name="grn")
        self.pwconv2 = keras.layers.Dense(dim, kernel_initializer=kernel_initializer(), dtype=dtype, name="pwconv2")
        self.drop_path = DropPath(drop_path_rate, dtype=dtype, name="drop_path")
        if not self.trainable:  # Keras does not pass the constructor's argument on to the inner layers
            for layer in self._layers:
                layer.trainable = False

    def build(self, x_shape: Sequence[int | None], hidden_shape: Sequence[int | None] | None = None) -> None:
        if x_shape[-1] != self.dim:
            raise ValueError(f"The block has dim={self.dim} channels. Received: x_shape={tuple(x_shape)}")
        for layer in self._layers:
            layer.dtype_policy = policy_at(layer.dtype_policy, f"{self.path}/{layer.name}")
        wide = (*x_shape[:-1], 4 * self.dim)
        self.dwconv.build(x_shape)
        self.norm.build(x_shape)
        self.pwconv1.build(x_shape)
        self.grn.build(wide)
        self.pwconv2.build(wide)
        restore_weights(self._layers, self._settings)
        self._settings = {}

    def call(self, x: Any, hidden: Any = None, training: bool | None = None) -> Any:
        y = self.checkpointed(lambda x: self._branch(x, hidden, training))(x)
        y = self.drop_path(y, training=training)
        if hidden is None:
            return x + y
        return hide(x + y, hidden)

    def _branch(self, x, hidden, training):
        # `training` is passed explicitly: Keras does not know it when this is recomputed for the gradients.
        return self.mlp(self.dwconv(x, hidden, training=training), hidden, training)

    def checkpointed(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Wraps a function of one tensor in `keras.remat` if `remat` is set; returns it unchanged otherwise."""
        return keras.remat(function) if self.remat else function

    def mlp(self, y: Any, hidden: Any = None, training: bool | None = None) -> Any:
        """Applies the layers after the depthwise convolution. Apart from GRN's statistics, they work per position.

        Takes `(N, ..., C)` with positions in any layout. The output at masked positions is the bias of the last layer.
        """
        shape = ops.shape(y)
        wide = (*shape[:-1], 4 * self.dim)
        # The dense layers get tensors of two axes: only then do TensorFlow's CPU kernels fuse product, bias and GELU.
        y = self.pwconv1(ops.reshape(self.norm(y, training=training), (-1, self.dim)))
        if training and fused.applies(wide, self.compute_dtype):
            y = self._fused_response(ops.reshape(y, wide), hidden)
        else:
            y = ops.reshape(keras.activations.gelu(y, approximate=False), wide)
            y = self.grn(y if hidden is None else hide(y, hidden))
        return ops.reshape(self.pwconv2(ops.reshape(y, (-1, 4 * self.dim))), shape)

    def _fused_response(self, y, hidden):
        """Computes `grn(hide(gelu(y)))` with the fused kernel."""
        y = ops.reshape(y, (ops.shape(y)[0], -1, 4 * self.dim))
        visible = None if hidden is None else 1 - ops.reshape(ops.cast(hidden, "float32"), (*ops.shape(y)[:2], 1))
        return fused.gelu_grn(y, self.grn.gamma, self.grn.beta, self.grn.epsilon, visible)

    def compute_output_shape(
        self, x_shape: Sequence[int | None], hidden_shape: Sequence[int | None] | None = None
    ) -> Sequence[int | None]:
        check_hidden(x_shape, hidden_shape)
        return x_shape

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "dim": self.dim, "drop_path_rate": self.drop_path_rate}
        if self.remat:  # older releases do not know it
            config["remat"] = True
        if self.dilation > 1:  # likewise
            config["dilation"] = self.dilation
        return {**config, **settings_of(self, direct_layers(self), self._settings)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        config = dict(config)
        settings = config.pop(SETTINGS, {})
        block = super().from_config(config)
        restore_flags(direct_layers(block), settings)
        block._settings = settings
        return block
