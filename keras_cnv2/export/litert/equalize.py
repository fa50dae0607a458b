"""Channels of equal weight, before activations that share one scale become int8."""

import keras
import numpy as np
from keras import ops

from keras_cnv2.export.litert.deployed_block import DeployedBlock

# Of the largest: what is below counts as this, so that channels which hardly speak are not blown up.
SMALLEST = 1e-3


def equalize(deployed, batches):
    """Evens out the channels that GRN makes large, in place and without a change of the outputs.

    GRN multiplies a few channels by large factors. These would set int8's scale for all. So each channel is divided
    by a constant, as part of GRN's factors, and its row of the kernel that follows is multiplied by it: half of the
    imbalance goes to the weights, which have a scale for every output.

    Args:
        deployed: A functional model from `deployable`.
        batches: Arrays of images, such as the model will see.

    Source: SmoothQuant (arXiv 2211.10438), equation 4 with alpha 0.5.
    """
    import tensorflow as tf

    blocks = [layer for layer in deployed.layers if isinstance(layer, DeployedBlock)]
    # Its last call is that in this graph: a block of a model within it has been called there before.
    before = keras.Model(deployed.input, [block._inbound_nodes[-1].input_tensors[0] for block in blocks])

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
