"""Counts the multiply-accumulates of a model from the shapes that its layers get while it is traced."""

import contextlib
import math
from unittest import mock

import keras
import tensorflow as tf

import keras_cnv2


def multiply_accumulates(function, *inputs):
    """Counts the multiply-accumulates of convolutions and dense layers; nothing is computed.

    Args:
        function: Function of tensors that calls layers.
        *inputs: Nested structures of `tf.TensorSpec` with static shapes.

    Returns:
        An int.
    """
    counts, outer = [], []

    def counting(call, count):
        def counted(layer, inputs, *args, **kwargs):
            outer.append(layer)
            outputs = call(layer, inputs, *args, **kwargs)
            outer.pop()
            if not outer:  # a layer within a counted one is part of its count
                counts.append(count(layer, inputs.shape, outputs.shape))
            return outputs

        return counted

    with contextlib.ExitStack() as stack:
        for kind, count in COUNTS.items():
            stack.enter_context(mock.patch.object(kind, "call", counting(kind.call, count)))
        tf.function(function, autograph=False).get_concrete_function(*inputs)
    return sum(counts)


def _of_kernel(layer, inputs, outputs):
    """Every element of the kernel is used once at each position of the output."""
    return math.prod(outputs[:-1]) * math.prod(layer.kernel.shape)


def _of_transposed(layer, inputs, outputs):
    """Every element of the kernel is used once at each position of the input."""
    return math.prod(inputs[:-1]) * math.prod(layer.kernel.shape)


def _of_block(layer, inputs, outputs):
    """A depthwise 7x7 convolution, and two dense layers: to four times the channels and back."""
    return math.prod(inputs[:-1]) * (49 * layer.dim + 8 * layer.dim**2)


# Blocks are counted as a whole, because they may compute their layers in one step.
COUNTS = {
    keras.layers.Conv2D: _of_kernel,
    keras.layers.Conv2DTranspose: _of_transposed,
    keras.layers.Dense: _of_kernel,
    keras_cnv2.ConvNeXtV2Block: _of_block,
}
