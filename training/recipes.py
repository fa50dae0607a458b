"""What to train, for how long and how: rows, with the names of the paper's tables."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Schedule:
    """The optimization of one phase: AdamW, a linear warm-up, then a cosine down to zero.

    Args:
        epochs: Passes over the training images.
        warmup_epochs: Of these, epochs in which the learning rate rises from 0.
        batch_size: Images a step.
        base_lr: Learning rate for a batch of 256; `lr` is what the optimizer gets.
        weight_decay: Decoupled weight decay of all weights of rank 2 and more.
        betas: AdamW's two decay rates.
    """

    epochs: int
    warmup_epochs: int
    batch_size: int
    base_lr: float
    weight_decay: float
    betas: tuple[float, float]

    @property
    def lr(self):
        return self.base_lr * self.batch_size / 256

    def with_epochs(self, epochs):
        """The same for another number of epochs; the warm-up takes at most half of them."""
        return replace(self, epochs=epochs, warmup_epochs=min(self.warmup_epochs, epochs // 2))


@dataclass(frozen=True)
class Recipe:
    """Pre-training and fine-tuning of one model on one data set.

    Args:
        depths, dims, stem_stride: The architecture, see `keras_cnv2.ConvNeXtV2`.
        image_size: Height and width of the images, in pixels.
        resize: How pictures become such images, "crop" or "squash", see `keras_cnv2.load_image`.
        mask_ratio, decoder_dim: See `keras_cnv2.FCMAE`.
        drop_path: Rate of stochastic depth when fine-tuning.
        shift: Largest random shift when fine-tuning, as a share of the image's side.
        rotation: Largest random rotation when fine-tuning, in degrees.
        pretraining, finetuning: The two schedules.
    """

    depths: tuple[int, int, int, int]
    dims: tuple[int, int, int, int]
    stem_stride: int
    image_size: int
    resize: str
    mask_ratio: float
    decoder_dim: int
    drop_path: float
    shift: float
    rotation: float
    pretraining: Schedule
    finetuning: Schedule


# Handwritten digits, 1437 for training, on two CPU cores.
QUICKSTART = Recipe(
    depths=(1, 1, 2, 1),
    dims=(16, 32, 64, 128),
    stem_stride=1,
    image_size=32,
    resize="squash",
    mask_ratio=0.6,
    decoder_dim=64,
    drop_path=0.0,
    shift=0.08,
    rotation=10.0,
    pretraining=Schedule(epochs=20, warmup_epochs=2, batch_size=64, base_lr=6e-3, weight_decay=0.05, betas=(0.9, 0.95)),
    finetuning=Schedule(epochs=20, warmup_epochs=2, batch_size=64, base_lr=6e-3, weight_decay=0.05, betas=(0.9, 0.999)),
)
