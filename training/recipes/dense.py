"""Fields that segmentation and detection share: training counted in steps, an encoder under a head."""

from dataclasses import dataclass

from . import schedules
from .common import Training

SCHEDULES = ("poly", "steps")

# For users' own small data sets, on two CPU cores.
SMALL = {
    "model": "atto",
    "image_size": 256,
    "batch_size": 8,
    "lr": 5e-4,
    "iterations": 1500,
    "warmup_iterations": 100,
    "report_every": 250,
    "weight_decay": 0.05,
    "betas": (0.9, 0.999),
    "layer_decay": 0.9,
    "drop_path": 0.1,
}


@dataclass(frozen=True, kw_only=True)
class Dense(Training):
    """Training of an encoder with a head for dense prediction, counted in optimizer steps.

    Args:
        weights: Weights of the encoder to start from: the folder of a run (pre-training or fine-tuning), a published
            tag or a file; none for random values.
        lr: Learning rate after the warm-up, not scaled by the batch size.
        schedule: "poly", which falls linearly to 0; or "steps", which falls to a tenth at 27/36 of the run and to a
            hundredth at 33/36.
        iterations: Number of optimizer steps.
        warmup_iterations: Number of first steps in which the learning rate rises from 0.
        report_every: Number of steps in an epoch of the log; validation follows each epoch.
        layer_decay: Factor on the learning rate from each layer of the encoder to the one below.
        layer_decay_type: "single": every block is a layer; "group": twelve groups of blocks, for base to huge.
        ema: Momentum of the moving average of the weights, which is evaluated and saved; none for no average.
        scale: Smallest and largest factor by which pictures are resized.
    """

    lr: float
    schedule: str = "poly"
    iterations: int
    warmup_iterations: int
    report_every: int
    layer_decay: float = 1.0
    layer_decay_type: str = "single"
    ema: float | None = None
    scale: tuple[float, float]

    def __post_init__(self):
        super().__post_init__()
        check = self.check
        check("lr", self.lr > 0, "positive")
        check("schedule", self.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}")
        check("stem_stride", self.stem_stride == 4, "4: heads are made for the strides 4 to 32")
        for name in ("iterations", "report_every"):
            check(name, getattr(self, name) > 0, "positive")
        check("iterations", self.iterations % self.report_every == 0, f"a multiple of report_every={self.report_every}")
        check("warmup_iterations", 0 <= self.warmup_iterations <= self.iterations, f"from 0 to {self.iterations}")
        check("scale", 0 < self.scale[0] <= self.scale[1], "two rising positive numbers")
        self.check_layer_decay()

    @property
    def epochs(self):
        """Number of epochs in the log."""
        return self.iterations // self.report_every

    @property
    def sides(self):
        """Height and width of the model's input, `None` where they may vary."""
        return None, None

    def steps_per_epoch(self, images):
        """Returns the number of training steps in an epoch of the log, for any number of images."""
        return self.report_every * self.accumulation

    def learning_rate(self, updates_per_epoch):
        """Returns the learning rate schedule, which counts optimizer steps."""
        falling = {"poly": schedules.poly, "steps": schedules.stepwise}[self.schedule](self.lr, self.iterations)
        return schedules.Warmup(falling, self.warmup_iterations)
