from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_cnv2.arguments import fraction
from keras_cnv2.distribute import replicas
from keras_cnv2.layers.built import needs_build


@keras.saving.register_keras_serializable(package="keras_cnv2")
class DropPath(keras.layers.Layer):
    """Stochastic depth: drops a residual branch for whole samples while training.

    Each sample of a batch is set to zero with probability `rate`, and divided by `1 - rate` otherwise, so that the
    expected value stays the same. When not training, or with rate 0, the input is returned unchanged.

    ```python
    drop_path = keras_cnv2.DropPath(0.5)
    y = drop_path(keras.ops.ones((4, 7, 7, 320)), training=True)  # (4, 7, 7, 320), each sample all 0 or all 2
    ```

    Args:
        rate: Float in `[0, 1)`, the probability that a sample's branch is dropped.
        seed: Optional int, the seed of this layer's own generator.

    Call arguments:
        x: Tensor of shape `(N, ...)`.
        training: Bool, whether to drop.

    Returns:
        A tensor of the shape and dtype of `x`.

    Raises:
        ValueError: If `rate` is not a number in `[0, 1)`.

    Source: Deep Networks with Stochastic Depth (arXiv 1603.09382), section 3.
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.rate = fraction("rate", rate)
        self.seed = seed
        if self.rate > 0:
            self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True  # Keras masks (of padding) are passed on
        self.built = not needs_build(self)

    def call(self, x: Any, training: bool | None = False) -> Any:
        if not training or self.rate == 0:
            return x
        per_sample = (ops.shape(x)[0],) + (1,) * (len(x.shape) - 1)
        kept = replicas.uniform(per_sample, self.seed_generator) >= self.rate
        return x * ops.cast(ops.cast(kept, "float32") / (1 - self.rate), x.dtype)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Sequence[int | None]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
