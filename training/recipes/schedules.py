"""Learning rates by the step that Keras has, with a warm-up before."""

import keras
from keras import ops

# Where in a run the learning rate falls to a tenth, and to a tenth of that: epochs 27 and 33 of 36.
DROPS = (27 / 36, 33 / 36)


@keras.saving.register_keras_serializable(package="keras_cnv2_training")
class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule times a factor that rises linearly from 0 to 1 through the first steps.

    Args:
        schedule: The `keras.optimizers.schedules.LearningRateSchedule`.
        warmup_steps: Int from 0 on, the steps before the factor is 1.
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
    """From `lr` to `min_lr` in a straight line: the "poly" schedule with power 1."""
    return keras.optimizers.schedules.PolynomialDecay(lr, steps, min_lr)


def stepwise(lr, steps):
    """`lr`, a tenth of it from the first of `DROPS` on, a hundredth from the second on."""
    boundaries = [round(share * steps) for share in DROPS]
    return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, [lr, lr / 10, lr / 100])
