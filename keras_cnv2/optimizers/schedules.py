"""The learning-rate schedule of the paper's recipes."""

import math
from numbers import Integral
from typing import Any

import keras
from keras import ops

from keras_cnv2.arguments import number, positive_int


@keras.saving.register_keras_serializable(package="keras_cnv2")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises linearly from zero, then falls to a minimum along half a cosine, per step.

    ```
    step < warmup_steps:  learning_rate * step / warmup_steps
    afterwards:           min + (learning_rate - min) * (1 + cos(pi * progress)) / 2
    ```

    `progress` rises from 0 at the end of the warm-up to 1 at `steps`. After that, the learning rate stays at its
    minimum.

    ```python
    schedule = keras_cnv2.WarmupCosine(8e-4, steps=10_000, warmup_steps=1_000)
    schedule(500)  # 0.0004
    schedule(1_000)  # 0.0008
    schedule(10_000)  # 0.0
    model.compile(keras_cnv2.LayerDecayAdamW(schedule), "sparse_categorical_crossentropy")
    ```

    Args:
        learning_rate: Positive float, the maximum: the paper's base learning rate * batch size / 256.
        steps: Positive int, the number of optimizer steps of the whole training, including the warm-up.
        warmup_steps: Int in `[0, steps]`, the number of steps of the warm-up.
        min_learning_rate: Float in `[0, learning_rate]`, the minimum.

    Call arguments:
        step: Int or tensor of ints of any shape, the number of optimizer steps done so far.

    Returns:
        A float32 tensor of the shape of `step`.

    Raises:
        ValueError: If an argument is out of range.

    Source: ConvNeXt V2 (arXiv 2301.00808), tables 8 to 13, "cosine decay" and "warmup epochs".
    """

    def __init__(self, learning_rate: float, steps: int, warmup_steps: int = 0, min_learning_rate: float = 0.0):
        super().__init__()
        number("learning_rate", learning_rate, "a positive number", lambda x: 0 < x < math.inf)
        self.steps = positive_int("steps", steps)
        number("warmup_steps", warmup_steps, f"an int in [0, steps={steps}]", lambda x: 0 <= x <= steps, kind=Integral)
        allowed = f"a number in [0, learning_rate={learning_rate}]"
        number("min_learning_rate", min_learning_rate, allowed, lambda x: 0 <= x <= learning_rate)
        self.learning_rate = float(learning_rate)
        self.warmup_steps = int(warmup_steps)
        self.min_learning_rate = float(min_learning_rate)

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        rising = self.learning_rate * step / max(self.warmup_steps, 1)
        remaining = ops.clip((self.steps - step) / max(self.steps - self.warmup_steps, 1), 0, 1)
        # Equal to (1 + cos(pi * progress)) / 2, but without its loss of precision near the end.
        share = ops.square(ops.sin(math.pi / 2 * remaining))
        falling = self.min_learning_rate + (self.learning_rate - self.min_learning_rate) * share
        return ops.where(step < self.warmup_steps, rising, falling)

    def get_config(self) -> dict[str, Any]:
        return {
            "learning_rate": self.learning_rate,
            "steps": self.steps,
            "warmup_steps": self.warmup_steps,
            "min_learning_rate": self.min_learning_rate,
        }
