"""Muon for the dense kernels of blocks, AdamW for all other weights, with layer-wise learning-rate decay."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_cnv2.arguments import fraction, number, positive_int
from keras_cnv2.optimizers.layer_decay_adamw import LayerDecayAdamW

# The coefficients of the Newton-Schulz polynomial a x + b x^3 + c x^5. Its slope at zero is steep: five steps bring
# singular values between 0.01 and 1 close to 1.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)

# The kernels of a block that are matrices, by the end of their paths.
MATRICES = ("pwconv1/kernel", "pwconv2/kernel")


@keras.saving.register_keras_serializable(package="keras_cnv2")
class LayerDecayMuon(LayerDecayAdamW):
    """Muon for the matrices of ConvNeXt V2's blocks, `LayerDecayAdamW` for all other weights.

    Muon makes the singular values of the update of a matrix nearly equal. For each kernel `w` of `pwconv1` and
    `pwconv2`, with gradient `g` and its own learning rate `lr`, as in `LayerDecayAdamW`:

    ```
    lr = learning_rate * multiplier
    w -= lr * weight_decay * w
    m = momentum * m + g
    x = g + momentum * m
    x = x / norm(x)                                                 # so that all singular values are at most 1
    x = 3.4445 * x - 4.7750 * (x x^T) x + 2.0315 * (x x^T)^2 x      # newton_schulz_steps times
    w -= lr * rms_rate * sqrt(max(rows, columns)) * x
    ```

    With the default `rms_rate`, updates are about as large as those of AdamW, so that learning rates and weight decay
    chosen for AdamW remain valid. AdamW updates the head, the stem, depthwise and downsampling kernels, and all weights
    of rank 1.

    ```python
    schedule = keras_cnv2.WarmupCosine(4e-3, steps=20_000, warmup_steps=1_000)
    model.compile(keras_cnv2.LayerDecayMuon(schedule, weight_decay=0.05), "sparse_categorical_crossentropy")
    ```

    Args:
        learning_rate, weight_decay: As in `LayerDecayAdamW`.
        momentum: Float in `[0, 1)`, the momentum for the gradients of matrices.
        newton_schulz_steps: Positive int, the number of Newton-Schulz iterations.
        rms_rate: Positive float, the root mean square of an update divided by the learning rate, if all its singular
            values are equal to 1.
        name: String.
        **kwargs: Further arguments of `LayerDecayAdamW`.

    Raises:
        ValueError: If an argument is out of range.

    Source: Muon (https://kellerjordan.github.io/posts/muon); Muon is Scalable for LLM Training (arXiv 2502.16982),
        section 2.2, for `rms_rate`. The numbers are those of `keras.optimizers.Muon` in Keras 3.15.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule | Callable[[], Any] = 1e-3,
        weight_decay: float | None = 0.05,
        momentum: float = 0.95,
        newton_schulz_steps: int = 5,
        rms_rate: float = 0.2,
        name: str = "layer_decay_muon",
        **kwargs: Any,
    ):
        super().__init__(learning_rate, weight_decay, name=name, **kwargs)
        fraction("momentum", momentum)
        number("rms_rate", rms_rate, "a positive number", lambda x: 0 < x < math.inf)
        self.momentum = float(momentum)
        self.newton_schulz_steps = positive_int("newton_schulz_steps", newton_schulz_steps)
        self.rms_rate = float(rms_rate)

    def _add_state(self, variables: Sequence[Any]) -> None:
        self._momentums = self.add_optimizer_variables(variables, "momentum")
        others = iter(self.add_optimizer_variables([v for v in variables if not _is_matrix(v)], "velocity"))
        self._velocities = [None if _is_matrix(v) else next(others) for v in variables]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        if self._velocities[index] is not None:
            super().update_step(gradient, variable, learning_rate)
            return
        momentum = self._momentums[index]
        dtype = keras.backend.result_type(variable.dtype, "float32")
        lr = ops.cast(learning_rate, dtype) * self._multipliers[index]
        g, w, m = (ops.cast(x, dtype) for x in (gradient, variable, momentum))
        m = self.momentum * m + g
        direction = orthogonalized(g + self.momentum * m, self.newton_schulz_steps)
        if self.weight_decay and self.decays(variable):
            w = w * (1 - lr * self.weight_decay)
        w = w - lr * (self.rms_rate * math.sqrt(max(w.shape))) * direction
        for target, new in ((momentum, m), (variable, w)):
            self.assign(target, self._if_update(new, target))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "newton_schulz_steps": self.newton_schulz_steps,
            "rms_rate": self.rms_rate,
        }


def orthogonalized(matrix: Any, steps: int) -> Any:
    """Brings the singular values of a matrix close to 1.

    Args:
        matrix: Float tensor `(m, n)`.
        steps: Int, the number of Newton-Schulz iterations.

    Returns:
        A tensor of the same shape and dtype.
    """
    a, b, c = COEFFICIENTS
    is_tall = matrix.shape[0] > matrix.shape[1]  # then transposed, so that `x x^T` is the smaller product
    x = ops.transpose(matrix) if is_tall else matrix
    x = x / (ops.norm(x) + 1e-7)
    for _ in range(steps):
        product = ops.matmul(x, ops.transpose(x))
        x = a * x + ops.matmul(b * product + c * ops.matmul(product, product), x)
    return ops.transpose(x) if is_tall else x


def _is_matrix(variable):
    return variable.path.endswith(MATRICES)
