"""Fields of pre-training and fine-tuning: training counted in epochs."""

from dataclasses import dataclass, replace

import keras_cnv2
from keras_cnv2.images.pictures import RESIZES

from ..errors import RecipeError
from . import schedules
from .augmentation import Augmented, check_augmentation
from .common import Training

SCHEDULES = ("cosine", "linear")


def check_scale(scale, mean, deviation):
    """Raises a `RecipeError` if the scaling of an .npz file is invalid, see `Recipe`."""
    if scale is not None and not scale > 0:
        raise RecipeError(f"scale must be positive. Received: scale={scale}")
    if scale is not None and mean is not None:
        raise RecipeError(f"scale must be given without mean and deviation. Received: scale={scale}, mean={mean}")
    if (mean is None) != (deviation is None) or len(mean or ()) != len(deviation or ()):
        raise RecipeError(
            f"mean and deviation must be given together, a number a channel. Received: mean={mean}, "
            f"deviation={deviation}"
        )
    if not all(value > 0 for value in deviation or ()):
        raise RecipeError(f"deviation must be positive numbers. Received: deviation={deviation}")


@dataclass(frozen=True, kw_only=True)
class Recipe(Training):
    """Fields that pre-training and fine-tuning share.

    The learning rate rises linearly during the warm-up to `base_lr * batch_size / 256`, then falls by half a cosine or
    linearly.

    Args:
        scale: Value in an .npz file that becomes white, 255. None leaves uint8 values unchanged, and scales other
            values by mean and deviation.
        mean: Mean of each channel in an .npz file; values are scaled such that mean and deviation become those that
            models expect. None, for values other than uint8, takes those of train_images and logs them.
        deviation: Standard deviation of each channel, given with the mean.
        train_share: Share of the training pictures that is used, the same for each class, to test training with few
            labels. With TensorFlow Datasets, the first pictures of the split.
        resize: How pictures become square images in evaluation: "crop" or "squash"; none for the paper's way.
        crop_area: Smallest and largest share of a picture's area that a random resized crop takes.
        shift: Maximum random shift in pixels along each axis, with reflection at the border.
        alternate_flip: Whether each image is mirrored in every other epoch instead of at random.
        epochs: Number of passes over the training images.
        warmup_epochs: Number of first epochs in which the learning rate rises from 0.
        base_lr: Learning rate for a batch of 256.
        min_lr: Learning rate at the end.
        schedule: How the learning rate falls: "cosine" after the warm-up; or "linear" from the first step on, times the
            warm-up's factor.
        grn: Whether Global Response Normalization learns. If not, it stays the identity, as initialised; the blocks
            are then those of ConvNeXt V1 without layer scale.
    """

    scale: float | None = None
    mean: tuple[float, ...] | None = None
    deviation: tuple[float, ...] | None = None
    train_share: float = 1.0
    resize: str | None = None
    crop_area: tuple[float, float]
    shift: int = 0
    alternate_flip: bool = False
    epochs: int
    warmup_epochs: int
    base_lr: float
    min_lr: float = 0.0
    schedule: str = "cosine"
    grn: bool = True

    def __post_init__(self):
        super().__post_init__()
        check = self.check
        check_scale(self.scale, self.mean, self.deviation)
        check("train_share", 0 < self.train_share <= 1, "above 0 and up to 1")
        check("resize", self.resize is None or self.resize in RESIZES, f"none or one of {', '.join(RESIZES)}")
        check("crop_area", 0 < self.crop_area[0] <= self.crop_area[1] <= 1, "two rising shares, above 0 and up to 1")
        check("shift", 0 <= self.shift < self.image_size, f"from 0 to below image_size={self.image_size}")
        check("alternate_flip", self.flip or not self.alternate_flip, "false if flip is false")
        check("epochs", self.epochs > 0, "positive")
        check("warmup_epochs", 0 <= self.warmup_epochs <= self.epochs, f"from 0 to epochs={self.epochs}")
        check("base_lr", self.base_lr > 0, "positive")
        check("schedule", self.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}")
        check("min_lr", 0 <= self.min_lr <= self.lr, f"from 0 to the learning rate {self.lr:g}")

    @property
    def lr(self):
        """The learning rate after the warm-up."""
        return self.base_lr * self.batch_size / 256

    @property
    def sides(self):
        """Height and width of the model's input, `None` where they may vary."""
        return self.image_size, self.image_size

    def steps_per_epoch(self, images):
        """Returns the number of training steps in an epoch, which is one pass over `images` images."""
        return self.steps_per_pass(images)

    def learning_rate(self, updates_per_epoch):
        """Returns the learning rate schedule, which counts optimizer steps: a warm-up, then half a cosine or linear."""
        if self.schedule == "linear":
            falling = schedules.poly(self.lr, self.epochs * updates_per_epoch, self.min_lr)
            return schedules.Warmup(falling, self.warmup_epochs * updates_per_epoch)
        return keras_cnv2.WarmupCosine(
            self.lr,
            steps=self.epochs * updates_per_epoch,
            warmup_steps=self.warmup_epochs * updates_per_epoch,
            min_learning_rate=self.min_lr,
        )


@dataclass(frozen=True, kw_only=True)
class Pretraining(Recipe):
    """FCMAE pre-training.

    Args:
        mask_ratio: Share of masked patches.
        decoder_dim: Number of channels of the decoder.
        decoder_depth: Number of blocks in the decoder.
        norm_pix_loss: Whether each patch of the target is normalised by its own mean and standard deviation.

    Source: ConvNeXt V2 (arXiv 2301.00808), table 8.
    """

    mask_ratio: float = 0.6
    decoder_dim: int = 512
    decoder_depth: int = 1
    norm_pix_loss: bool = True

    def __post_init__(self):
        super().__post_init__()
        patch = 8 * self.stem_stride
        self.check("image_size", self.image_size % patch == 0, f"a multiple of the patch of {patch} pixels")
        self.check("mask_ratio", 0 < self.mask_ratio < 1, "between 0 and 1")
        for name in ("decoder_dim", "decoder_depth"):
            self.check(name, getattr(self, name) > 0, "positive")


@dataclass(frozen=True, kw_only=True)
class Finetuning(Augmented, Recipe):
    """Supervised training of a classifier, from pre-trained weights or from scratch.

    Args:
        frozen: Whether only the final norm and the head are trained (a linear probe).
        first_size: Height and width of the images in the first epochs, in pixels; smaller ones save time. None for
            image_size in all epochs.
        first_epochs: Number of epochs with first_size.
        layer_decay: Factor on the learning rate from each layer to the one below.
        layer_decay_type: "single": every block is a layer; "group": twelve groups of blocks, for base to huge.
        head_init: Factor on the initial values of the head; training without weights uses 1.
        ema: Momentum of the moving average of the weights, which is evaluated and saved; none for no average.
        teacher: A trained classifier with the same classes, whose predictions are learned together with the labels: the
            folder of a run, "hf://owner/name", a folder or a file of a model, any classifier's .keras file, or a
            SavedModel; none to learn from the labels alone.
        teacher_share: Weight of the teacher's part in the loss, 0 to 1; the rest is that of the labels.
        temperature: What the logits of both models are divided by in the teacher's part of the loss. Higher values
            stress which of the wrong classes the teacher finds more probable.

    Sources: ConvNeXt V2 (arXiv 2301.00808), tables 9 to 13; distillation: arXiv 1503.02531, section 2.
    """

    frozen: bool = False
    first_size: int | None = None
    first_epochs: int = 0
    layer_decay: float = 1.0
    layer_decay_type: str = "single"
    head_init: float = 1.0
    ema: float | None = None
    teacher: str | None = None
    teacher_share: float = 0.5
    temperature: float = 3.0

    def __post_init__(self):
        super().__post_init__()
        check = self.check
        self.check_layer_decay()
        patch = 8 * self.stem_stride
        allowed = f"none or from {patch}, for stem_stride={self.stem_stride}, to image_size={self.image_size}"
        check("first_size", self.first_size is None or patch <= self.first_size <= self.image_size, allowed)
        check("first_epochs", 0 <= self.first_epochs <= self.epochs, f"from 0 to epochs={self.epochs}")
        check("first_epochs", (self.first_epochs > 0) == (self.first_size is not None), "given with first_size")
        check_augmentation(self)
        check("head_init", self.head_init > 0, "positive")
        check("teacher_share", 0 <= self.teacher_share <= 1, "from 0 to 1")
        check("temperature", self.temperature > 0, "positive")
        for name in ("teacher_share", "temperature"):
            default = getattr(Finetuning, name)
            check(name, self.teacher or getattr(self, name) == default, f"{default:g} without a teacher")

    @property
    def sides(self):
        return (None, None) if self.first_size else super().sides

    @property
    def parts(self):
        if not self.first_size:
            return super().parts
        return [(replace(self, image_size=self.first_size), self.first_epochs), *super().parts]
