import keras
from keras import ops

from keras_cnv2.kernels import fused

# The only arguments that `fused` supports in training. The configuration of a built layer has its axis in a list.
ALLOWED = {"axis": (-1, [-1], (-1,)), "center": (True,), "scale": (True,), "rms_scaling": (False,)}


@keras.saving.register_keras_serializable(package="keras_cnv2")
class LayerNorm(keras.layers.LayerNormalization):
    """`keras.layers.LayerNormalization` over the last axis, with epsilon 1e-6, scale and shift.

    It computes the same numbers, in float32 or higher precision. On a CPU it trains faster and stores less for its
    gradient: see `keras_cnv2.kernels.fused`.

    ```python
    x = keras.random.normal((2, 14, 14, 160))
    y = keras_cnv2.layers.LayerNorm()(x)  # (2, 14, 14, 160), mean 0 and variance 1 at each position
    ```

    Args:
        epsilon: Small positive float, added to the variance.
        **kwargs: As in `keras.layers.LayerNormalization`. `axis` must be -1, `scale` and `center` true, `rms_scaling`
            false.

    Call arguments:
        x: Float tensor `(N, ..., C)`.
        training: Bool, whether the layer is training.

    Returns:
        A tensor of the shape of `x`.

    Raises:
        ValueError: If `axis`, `scale`, `center` or `rms_scaling` has another value.

    Source: ConvNeXt (arXiv 2201.03545), section 2.6, "Substituting BN with LN".
    """

    def __init__(self, epsilon=1e-6, **kwargs):
        for name, allowed in ALLOWED.items():
            if name in kwargs and kwargs[name] not in allowed:
                raise ValueError(f"LayerNorm works with {name}={allowed[0]} only. Received: {name}={kwargs[name]!r}")
        super().__init__(epsilon=epsilon, **kwargs)

    def call(self, x, training=None):
        if not training or not fused.applies(x.shape, self.compute_dtype):
            return super().call(x)
        rows = ops.reshape(x, (-1, x.shape[-1]))
        return ops.reshape(fused.layer_norm(rows, self.gamma, self.beta, self.epsilon), ops.shape(x))
