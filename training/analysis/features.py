"""Activations of a model's blocks."""

import keras
from keras import ops

from keras_cnv2 import ConvNeXtV2Block


class Blocks:
    """Computes the activations of a model's blocks.

    Args:
        model: A classifier, a backbone or an FCMAE, whose encoder then gets unmasked images.

    Attributes:
        names: Names of the blocks, from the first to the last.
    """

    def __init__(self, model):
        encoder = getattr(model, "backbone", model)
        self.blocks = [layer for layer in encoder.layers if isinstance(layer, ConvNeXtV2Block)]
        self.names = [block.name for block in self.blocks]
        self.graph = keras.Model(encoder.input, [(block.input, block.output) for block in self.blocks])

    def of(self, images):
        """Yields for each block its activations after GRN and its output, `(N, H, W, 4C)` and `(N, H, W, C)` arrays.

        Args:
            images: `(N, height, width, channels)`, the model's input.
        """
        for block, (x, output) in zip(self.blocks, self.graph(images, training=False)):
            yield ops.convert_to_numpy(expanded(block, x)), ops.convert_to_numpy(output)


def expanded(block, x):
    """Returns a block's activations after its first dense layer, GELU and GRN, where the paper saw feature collapse."""
    y = block.pwconv1(block.norm(block.dwconv(x)))
    return ops.cast(block.grn(keras.activations.gelu(y, approximate=False)), "float32")
