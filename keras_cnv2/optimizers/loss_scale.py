from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_cnv2.distribute import replicas


@keras.saving.register_keras_serializable(package="keras_cnv2")
class LossScaleOptimizer(keras.optimizers.LossScaleOptimizer):
    """`keras.optimizers.LossScaleOptimizer` that also works if float16 overflows on one replica and not on another.

    In that case all replicas skip the step and lower the scale. In Keras's own class (3.10 to 3.15) each replica checks
    only its own gradients, before they are summed: weights become NaN under `MirroredStrategy`, and several workers
    wait for each other forever. On one device, both classes do the same.

    ```python
    optimizer = keras_cnv2.LossScaleOptimizer(keras_cnv2.LayerDecayAdamW(1e-3))
    model.compile(optimizer, "sparse_categorical_crossentropy")
    ```

    Args:
        inner_optimizer: The optimizer that updates the weights.
        initial_scale, dynamic_growth_steps, name: As in `keras.optimizers.LossScaleOptimizer`.

    Source: Mixed Precision Training (arXiv 1710.03740), section 3.2.
    """

    def check_finite(self, grads: Sequence[Any]) -> Any:
        finite = super().check_finite(grads)
        _, count = replicas.replica()
        return finite if count == 1 else replicas.all_sum(ops.cast(finite, "int32")) == count
