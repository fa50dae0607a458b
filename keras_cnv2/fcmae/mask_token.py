import keras
from keras import ops

from keras_cnv2.layers.block import kernel_initializer


@keras.saving.register_keras_serializable(package="keras_cnv2")
class MaskToken(keras.layers.Layer):
    """Puts one learned vector into the hidden positions, for the decoder to paint.

    Call arguments:
        x: Tensor `(N, h, w, dim)`.
        hidden: Tensor `(N, h, w)`, 1 where hidden and 0 where visible.

    Returns:
        A tensor of the shape of `x`: as it is where visible, the token where hidden.

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
