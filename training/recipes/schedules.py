"""Learning rate schedules built from Keras's own, with a warm-up."""

import keras
from keras import ops

# Shares of a run after which the learning rate falls to a tenth, and to a hundredth: epochs 27 and 33 of 36.
DROPS = (27 / 36, 33 / 36)


@keras.saving.register_keras_serializable(package="keras_cnv2_training")
class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    """Multiplies a schedule by a factor that rises linearly from 0 to 1 during the first steps.

    Args:
        schedule: The `keras.optimizers.schedules.LearningRateSchedule`.
        warmup_steps: Int of at least 0, the number of steps before the factor is 1.
    """

    def __init__(self, schedule, warmup_steps):
        super().__init__()
        self.schedule = schedule
        self.warmup_steps = warmup_steps

    def __call__(self, step):
        factor = ops.minimum(ops.cast(step, "float32") / max(self.warmup_steps, 1), 1.0)
        return self.schedule(step) * (factor if self.warmup_steps else 1.0)

    def get_config(self):
        return {"schedule": keras.saving.serialize_keras_object(self.schedule), "warmup_steps": self.warmup_steps}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["schedule"]), config["warmup_steps"])


def poly(lr, steps, min_lr=0.0):
    """Returns a schedule that falls linearly from `lr` to `min_lr`: the "poly" schedule with power 1."""
    return keras.optimizers.schedules.PolynomialDecay(lr, steps, min_lr)


def stepwise(lr, steps):
    """Returns a schedule of `lr`, then `lr / 10` from the first of `DROPS` on, then `lr / 100` from the second on."""
    boundaries = [round(share * steps) for share in DROPS]
    return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, [lr, lr / 10, lr / 100])
