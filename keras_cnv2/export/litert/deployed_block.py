"""Rewrites a folded model with rank-4 tensors throughout, so that LiteRT delegates the whole model to XNNPACK."""

import keras
import numpy as np
from keras import ops

from keras_cnv2.folding.block import FoldedBlock, Standardize
from keras_cnv2.folding.fold import fold

# XNNPACK's fast kernels for depthwise convolutions have at most 25 taps. With 49 taps it falls back to a kernel that
# takes four to seven times as long (measured in float32 on x86). So a 7x7 convolution is computed as the sum of three
# 3x7 convolutions with these row dilations.
DILATIONS = (1, 2, 3)


def deployable(model):
    """Builds a model with the same inputs and outputs from operations for which LiteRT has fast CPU kernels.

    Args:
        model: A model that `keras_cnv2.fold` accepts. It is not changed.

    Returns:
        A functional model with copies of the weights. It is flat: nested models are replaced by their layers.

    Raises:
        ValueError: As `keras_cnv2.fold`.
    """
    return _deployable(fold(model))


def _deployable(folded):
    """Implements `deployable` for a folded model. Layers other than blocks are reused in the new model."""

    def deployed(layer):
        if isinstance(layer, (keras.Function, keras.Sequential)):
            return _deployable(layer)
        return DeployedBlock(layer) if isinstance(layer, FoldedBlock) else layer

    def called(layer, *args, **kwargs):
        return (layer.call if isinstance(layer, keras.Function) else layer)(*args, **kwargs)

    if isinstance(folded, keras.Sequential):
        folded = keras.Model(folded.inputs[0], folded.outputs[0], name=folded.name)
    return keras.models.clone_model(folded, clone_function=deployed, call_function=called)


class DeployedBlock(keras.layers.Layer):
    """A `FoldedBlock` on rank-4 tensors, with 1x1 convolutions in place of dense layers.

    A dense layer on a rank-4 tensor would become reshapes to two axes and back. The Euclidean norm of GRN is written
    out, because LiteRT has no such operation.

    Args:
        block: The `FoldedBlock` whose weights are copied.

    Call arguments:
        x: Float tensor `(N, H, W, C)`.

    Returns:
        A tensor of the shape of `x`.
    """

    def __init__(self, block):
        dtype = block.dtype_policy
        super().__init__(name=block.name, dtype=dtype)
        self.dilation = block.dilation
        self.rows = [
            keras.layers.DepthwiseConv2D(
                (3, 7),
                padding="same",
                dilation_rate=(dilation * block.dilation, block.dilation),
                use_bias=dilation == 1,
                dtype=dtype,
                name=f"rows_{dilation}",
            )
            for dilation in DILATIONS
        ]
        self.norm = Standardize(block.norm_epsilon, dtype=dtype, name="norm")
        self.pwconv1 = keras.layers.Conv2D(4 * block.dim, 1, dtype=dtype, name="pwconv1")
        self.pwconv2 = keras.layers.Conv2D(block.dim, 1, dtype=dtype, name="pwconv2")
        # GRN's factors are `n * gamma + offset`.
        self.gamma, self.offset = ops.convert_to_numpy(block.gamma), np.float32(1)
        self.grn_epsilon = block.grn_epsilon
        self._take_values(block)

    def _take_values(self, block):
        kernel, bias = block.dwconv.get_weights()
        for rows, dilation in zip(self.rows, DILATIONS):
            part = kernel[[3 - dilation, 3, 3 + dilation]]
            if dilation > 1:
                part[1] = 0  # the middle row belongs to dilation 1 only
            rows.build((None, None, None, block.dim))
            rows.set_weights([part, bias] if rows.use_bias else [part])
        for name, width in (("pwconv1", block.dim), ("pwconv2", 4 * block.dim)):
            kernel, bias = getattr(block, name).get_weights()
            conv = getattr(self, name)
            conv.build((None, None, None, width))
            conv.set_weights([kernel[None, None], bias])
        self.built = True

    def call(self, x):
        return x + self.pwconv2(self.wide(x))

    def wide(self, x):
        """Returns the input of the last convolution, `(N, H, W, 4C)`."""
        y = self.pwconv1(self.norm(self._depthwise(x)))
        y = keras.activations.gelu(y, approximate=False)
        return y * self._grn_factors(y)

    def _depthwise(self, x):
        y = self.rows[0](x)
        for rows, dilation in zip(self.rows[1:], DILATIONS[1:]):
            # On a feature map with no more rows than the dilation, it would read only padding: all zeros, for which
            # int8 has no scale.
            if x.shape[1] is None or dilation * self.dilation < x.shape[1]:
                y = y + rows(x)
        return y

    def _grn_factors(self, y):
        g = ops.sqrt(ops.sum(ops.square(y), axis=(1, 2), keepdims=True))
        n = g / (ops.mean(g, axis=-1, keepdims=True) + self.grn_epsilon)
        return n * self.gamma + self.offset

    def compute_output_shape(self, x_shape):
        return x_shape
