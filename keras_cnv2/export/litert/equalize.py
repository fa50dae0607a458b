"""Equalizes channels before int8 quantization, where all channels of an activation share one scale."""

import keras
import numpy as np
from keras import ops

from keras_cnv2.export.litert.deployed_block import DeployedBlock
from keras_cnv2.keras_internals import calls_of

# Lower bound of a channel's peak, relative to the largest peak, so that nearly silent channels are not amplified.
SMALLEST = 1e-3


def equalize(deployed, batches):
    """Evens out the channels that GRN makes large, in place and without changing the outputs.

    GRN multiplies a few channels by large factors, which would determine the int8 scale of all channels. Therefore
    each channel is divided by a constant, as part of GRN's factors, and its row in the following kernel is multiplied
    by the same constant. This moves half of the imbalance to the weights, which have one scale per output channel.

    Args:
        deployed: A functional model from `deployable`.
        batches: Arrays of images such as the model will see.

    Source: SmoothQuant (arXiv 2211.10438), equation 4 with alpha 0.5.
    """
    import tensorflow as tf

    blocks = [layer for layer in deployed.layers if isinstance(layer, DeployedBlock)]
    # The last node of a block is its call in this graph: the blocks of a nested model were called there first.
    before = keras.Model(deployed.input, [calls_of(block)[-1].input_tensors[0] for block in blocks])

    @tf.function
    def peaks_of(images):
        return [ops.max(ops.abs(block.wide(x)), axis=(0, 1, 2)) for block, x in zip(blocks, before(images))]

    peaks = [np.max(values, axis=0) for values in zip(*map(peaks_of, batches))]
    for block, peak in zip(blocks, peaks):
        kernel, bias = block.pwconv2.get_weights()
        divisors = np.sqrt(_floored(peak) / _floored(np.abs(kernel).max((0, 1, 3))))
        divisors /= np.exp(np.log(divisors).mean())
        block.gamma, block.offset = block.gamma / divisors, block.offset / divisors
        block.pwconv2.set_weights([kernel * divisors[:, None], bias])


def _floored(values):
    return np.maximum(values, max(SMALLEST * values.max(), 1e-12))
