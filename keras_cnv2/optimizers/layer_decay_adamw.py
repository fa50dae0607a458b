"""AdamW with layer-wise learning-rate decay, the optimizer of the paper's recipes."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_cnv2.arguments import fraction, number
from keras_cnv2.kernels import adam
from keras_cnv2.optimizers.layer_decay import LAYER_DECAY_TYPES, layers_above


@keras.saving.register_keras_serializable(package="keras_cnv2")
class LayerDecayAdamW(keras.optimizers.Optimizer):
    """AdamW as PyTorch computes it, with a learning rate that decays from the head down to the stem.

    For each weight `w` with gradient `g` and its own learning rate `lr`, at step `t` counted from 1:

    ```
    lr = learning_rate * multiplier
    w -= lr * weight_decay * w
    m += (1 - beta_1) * (g - m)
    v += (1 - beta_2) * (g ** 2 - v)
    w -= lr * m / (1 - beta_1 ** t) / (sqrt(v / (1 - beta_2 ** t)) + epsilon)
    ```

    The multiplier is `layer_decay ** n`, where `n` is the number of layers above the weight. It is derived from the
    paths of the weights, which may have prefixes, so it works for any model that contains a ConvNeXt V2. All weights
    above the stages (norm, head, decoder of an FCMAE, your own layers) are one layer, the top one, with multiplier 1.
    Since layers are counted from the top, frozen layers at the bottom change nothing. Frozen stages at the top are not
    counted. Several encoders in one model are counted separately: their weights must come one encoder after the other,
    as in `trainable_variables`.

    Weights of rank 1, biases, GRN and the mask token have no weight decay; `exclude_from_weight_decay` adds to these.

    With `gradient_accumulation_steps`, the schedule and the moving average of the weights count updates of the weights,
    not batches.

    ```python
    schedule = keras_cnv2.WarmupCosine(8e-4, steps=600 * 1251, min_learning_rate=1e-6)
    optimizer = keras_cnv2.LayerDecayAdamW(schedule, weight_decay=0.3, layer_decay=0.9)
    ```

    Args:
        learning_rate: Float, a `LearningRateSchedule`, or a function without arguments.
        weight_decay: Float of at least 0, or `None` for no decay. It is decoupled from the gradient, and multiplied by
            the learning rate.
        beta_1, beta_2: Floats in `[0, 1)`.
        epsilon: Positive float.
        layer_decay: Float in `(0, 1]`; 1 means no layer decay.
        layer_decay_type: "single": each block is a layer, together with the stem or downsampling before it. "group",
            for depths (3, 3, 27, 3): the stem, stages 1, 2 and 4, and every three blocks of stage 3 are a layer each.
        clipnorm, clipvalue, global_clipnorm: As in `keras.optimizers.AdamW`.
        use_ema, ema_momentum, ema_overwrite_frequency: As in `keras.optimizers.AdamW`, except for the default momentum.
        loss_scale_factor, gradient_accumulation_steps, name: As in `keras.optimizers.AdamW`.

    Raises:
        ValueError: If an argument is out of range; when the optimizer is built, if the weights of several encoders are
            mixed, or with "group", if a stage has another depth.

    Source: ConvNeXt V2 (arXiv 2301.00808), tables 9 to 13, "layer-wise lr decay"; Decoupled Weight Decay Regularization
        (arXiv 1711.05101), algorithm 2.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule | Callable[[], Any] = 1e-3,
        weight_decay: float | None = 0.05,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        layer_decay: float = 1.0,
        layer_decay_type: str = "single",
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.9999,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str = "layer_decay_adamw",
    ):
        super().__init__(
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            clipnorm=clipnorm,
            clipvalue=clipvalue,
            global_clipnorm=global_clipnorm,
            use_ema=use_ema,
            ema_momentum=ema_momentum,
            ema_overwrite_frequency=ema_overwrite_frequency,
            loss_scale_factor=loss_scale_factor,
            gradient_accumulation_steps=gradient_accumulation_steps,
            name=name,
        )
        if weight_decay is not None:
            number("weight_decay", weight_decay, "None or a number from 0 on", lambda x: 0 <= x < math.inf)
        for key, beta in (("beta_1", beta_1), ("beta_2", beta_2)):
            fraction(key, beta)
        number("epsilon", epsilon, "a positive number", lambda x: 0 < x < math.inf)
        number("layer_decay", layer_decay, "a number in (0, 1]", lambda x: 0 < x <= 1)
        if layer_decay_type not in LAYER_DECAY_TYPES:
            raise ValueError(
                f"layer_decay_type must be one of {LAYER_DECAY_TYPES}. Received: layer_decay_type={layer_decay_type!r}"
            )
        self.beta_1 = float(beta_1)
        self.beta_2 = float(beta_2)
        self.epsilon = float(epsilon)
        self.layer_decay = float(layer_decay)
        self.layer_decay_type = layer_decay_type

    def build(self, variables: Sequence[Any]) -> None:
        if self.built:
            return
        layers = layers_above([_path(v) for v in variables], self.layer_decay_type)
        super().build(variables)
        self._multipliers = tuple(self.layer_decay**above for above in layers)
        self._add_state(variables)

    def _add_state(self, variables: Sequence[Any]) -> None:
        self._momentums, self._velocities = self.add_optimizer_variables(variables, ["momentum", "velocity"])

    def multiplier(self, variable: Any) -> float:
        """Returns the factor on the learning rate for a variable that the optimizer was built with, a float."""
        return self._multipliers[self._get_variable_index(variable)]

    def decays(self, variable: Any) -> bool:
        """Whether a variable that the optimizer was built with has weight decay."""
        # Under tf.distribute, the argument may be one replica's variable, which has no path.
        variable = self._trainable_variables[self._get_variable_index(variable)]
        return not _is_exempt(variable) and self._use_weight_decay(variable)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        momentum, velocity = self._momentums[index], self._velocities[index]
        dtype = keras.backend.result_type(variable.dtype, "float32")
        lr = ops.cast(learning_rate, dtype) * self._multipliers[index]
        beta_1, beta_2 = self.beta_1, self.beta_2
        has_kernel = not self.gradient_accumulation_steps and adam.fits(gradient, variable)
        # The kernel rounds the betas to float32 (which changes 1 - 0.999 by 1.3e-5). The corrections use rounded ones.
        if has_kernel:
            beta_1, beta_2 = float(np.float32(beta_1)), float(np.float32(beta_2))
        # The bias corrections of `m` and `v` are factors on scalars here, which saves two passes over the weight.
        root = ops.sqrt(self._bias_correction(beta_2, dtype))
        rate, epsilon = lr * root / self._bias_correction(beta_1, dtype), self.epsilon * root
        decay = lr * self.weight_decay if self.weight_decay and self.decays(variable) else None

        if has_kernel:
            if decay is not None:
                self.assign(variable, variable * (1 - decay))
            adam.step(gradient, variable, momentum, velocity, beta_1, beta_2, rate, epsilon)
            return
        g, w, m, v = (ops.cast(x, dtype) for x in (gradient, variable, momentum, velocity))
        m = m + (g - m) * (1 - beta_1)
        v = v + (ops.square(g) - v) * (1 - beta_2)
        if decay is not None:
            w = w * (1 - decay)
        w = w - rate * m / (ops.sqrt(v) + epsilon)
        for target, new in ((momentum, m), (velocity, v), (variable, w)):
            self.assign(target, self._if_update(new, target))

    def _bias_correction(self, beta, dtype):
        """Computes `1 - beta ** t`, in full precision even if the power is close to one."""
        step = ops.cast(self.iterations + 1, dtype)
        return -ops.expm1(step * (math.log(beta) if beta else -math.inf))

    # The methods below replace methods of Keras (3.10 to 3.15) that do not work with gradient accumulation: Keras calls
    # the schedule with the number of batches, updates and applies the average of the weights at every batch, and fails
    # under tf.distribute, where replicas cannot synchronize inside of a branch. JAX cannot assign variables inside of a
    # branch, either. So there are no branches here.

    def _get_current_learning_rate(self):
        if isinstance(self._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            return self._learning_rate(self.iterations)
        return super()._get_current_learning_rate()

    def _if_update(self, new, old):
        """Returns `new` at steps that update the weights, and `old` at steps that only accumulate gradients."""
        if not self.gradient_accumulation_steps:
            return new
        is_update = (self._iterations + 1) % self.gradient_accumulation_steps == 0
        return ops.where(is_update, new, ops.convert_to_tensor(old))

    def _backend_apply_gradients(self, grads, trainable_variables):
        if self.gradient_accumulation_steps:
            grads = [self._accumulate(*pair) for pair in zip(grads, trainable_variables)]
        if keras.backend.backend() != "tensorflow":
            grads = self._clip_gradients(grads)
        self._backend_update_step(grads, trainable_variables, self.learning_rate)
        if self.use_ema:
            self._update_model_variables_moving_average(self._trainable_variables)

    def _all_reduce_sum_gradients(self, grads_and_vars):
        # On TensorFlow, gradients are clipped here, after the sum: now their norm is that of the whole batch.
        grads, variables = zip(*super()._all_reduce_sum_gradients(grads_and_vars))
        return [*zip(self._clip_gradients(grads), variables)]

    def _accumulate(self, gradient, variable):
        """Adds to the accumulated gradient, and returns its mean. The mean is complete at steps that update weights."""
        accumulator = self._accumulated_gradients[self._get_variable_index(variable)]
        total = ops.add(accumulator, gradient)
        accumulator.assign(self._if_update(ops.zeros_like(total), total))
        return total / self.gradient_accumulation_steps

    def _update_model_variables_moving_average(self, trainable_variables):
        rate = ops.where(self.iterations == 0, 1.0, 1 - self.ema_momentum)
        for variable, average in zip(trainable_variables, self._model_variables_moving_average):
            if average is None:  # a variable with `overwrite_with_gradient`, which has no average
                continue
            w, old = ops.convert_to_tensor(variable), ops.convert_to_tensor(average)
            moved = self._if_update(old + ops.cast(rate, old.dtype) * (w - old), old)
            average.assign(moved)
            if self.ema_overwrite_frequency:
                overwrite = (self.iterations + 1) % self.ema_overwrite_frequency == 0
                variable.assign(self._if_update(ops.where(overwrite, moved, w), w))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "layer_decay": self.layer_decay,
            "layer_decay_type": self.layer_decay_type,
        }


def _is_exempt(variable):
    """Whether a weight is always excluded from weight decay."""
    *layers, name = _path(variable).split("/")
    return len(variable.shape) <= 1 or name == "bias" or "grn" in layers or "mask_token" in layers


def _path(variable):
    return getattr(variable, "path", variable.name)
