import keras
from keras import ops

from keras_cnv2.layers.block import kernel_initializer


@keras.saving.register_keras_serializable(package="keras_cnv2")
class MaskToken(keras.layers.Layer):
    """Replaces masked positions by one learned vector, the mask token, as input of the decoder.

    Call arguments:
        x: Tensor `(N, h, w, dim)`.
        hidden: Mask, a tensor `(N, h, w)`: 1 where masked and 0 where visible.

    Returns:
        A tensor of the shape of `x`: unchanged where visible, the token where masked.

    Source: ConvNeXt V2 (arXiv 2301.00808), section 3.1, "Decoder design"; Masked Autoencoders (arXiv 2111.06377),
        section 3.
    """

    def build(self, x_shape, hidden_shape=None):
        self.token = self.add_weight(name="token", shape=(x_shape[-1],), initializer=kernel_initializer())

    def call(self, x, hidden):
        hidden = ops.expand_dims(ops.cast(hidden, x.dtype), -1)
        return x * (1 - hidden) + self.token * hidden

    def compute_output_shape(self, x_shape, hidden_shape=None):
        return x_shape
