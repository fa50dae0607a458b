"""The fields of recipes: frozen dataclasses with the paper's names, and values derived from them.

The optimizer is AdamW, or Muon for the matrices of the blocks and AdamW for the rest. Weights of rank 1 have no weight
decay: norms, biases, GRN, the mask token.
"""

from dataclasses import dataclass, replace

import keras_cnv2.sizes
from keras_cnv2.images.header import MAX_PIXELS
from keras_cnv2.images.pictures import RESIZES

from ..errors import RecipeError
from . import schedules

OPTIMIZERS = ("adamw", "muon")
SCHEDULES = ("cosine", "linear")
DTYPES = ("float32", "mixed_bfloat16", "mixed_float16")


@dataclass(frozen=True, kw_only=True)
class Training:
    """Fields that all kinds of training share: data, encoder, optimizer.

    Args:
        data: The data set: a folder of pictures, "tfds:NAME" for TensorFlow Datasets, "digits" for scikit-learn's
            handwritten digits, or an .npz file with train_images, train_labels and optionally test_images and
            test_labels.
        validation_share: Share of the pictures that is held out if the data have no validation split.
        max_unreadable: Largest share of the pictures that may be unreadable; ten are always allowed. Unreadable
            pictures are logged and skipped.
        exif_orientation: Whether pictures are turned and mirrored as their EXIF data say, as in image viewers. A
            picture is not turned if its annotations have the size of the picture as stored.
        max_pixels: Height times width of the largest picture that is decoded; larger ones count as unreadable.
        model: Name of a published size, "atto" to "huge"; or give depths and dims.
        depths: Number of blocks in each stage.
        dims: Number of channels in each stage.
        stem_stride: 4, or 2 or 1 for small images.
        weights: Weights to start from: the folder of a run, a published tag or a file; none for random values.
        image_size: Height and width of the images, in pixels.
        flip: Whether half of the images are mirrored.
        batch_size: Number of images in an optimizer step, over all devices and accumulated steps.
        optimizer: "adamw", or "muon" for the matrices of the blocks, with AdamW for all other weights.
        weight_decay: Decoupled weight decay.
        betas: AdamW's two decay rates.
        drop_path: Rate of stochastic depth in the last block; the rate rises linearly from 0 in the first block.
        accumulation: Number of steps whose gradients are averaged for one optimizer step, to save memory.
        clip_norm: Largest global norm of the gradients; none for no clipping.
        dtype: "float32", "mixed_bfloat16", or "mixed_float16" with loss scaling.
        remat: Whether the activations of blocks are recomputed for the gradients instead of stored (gradient
            checkpointing).
        checkpoint_steps: Number of steps between checkpoints within an epoch; each epoch also ends with one.
        deterministic: Whether the same seed gives bit-identical results, which is slower on GPUs.
        seed: Seed of initial values, order, augmentation, masks and drop path.
    """

    # Settings of the optimizer that are not fields in pre-training.
    layer_decay, layer_decay_type, ema = 1.0, "single", None

    data: str | None = None
    validation_share: float = 0.1
    max_unreadable: float = 0.01
    exif_orientation: bool = True
    max_pixels: int = MAX_PIXELS
    model: str | None = None
    depths: tuple[int, int, int, int] | None = None
    dims: tuple[int, int, int, int] | None = None
    stem_stride: int = 4
    weights: str | None = None
    image_size: int = 224
    flip: bool = True
    batch_size: int
    optimizer: str = "adamw"
    weight_decay: float
    betas: tuple[float, float]
    drop_path: float = 0.0
    accumulation: int = 1
    clip_norm: float | None = None
    dtype: str = "float32"
    remat: bool = False
    checkpoint_steps: int = 1000
    deterministic: bool = False
    seed: int = 0

    def __post_init__(self):
        sizes = tuple(keras_cnv2.sizes.SIZES)
        given = (self.depths is None, self.dims is None)
        check = self._check
        check("model", self.model is None or self.model in sizes, f"none or one of {', '.join(sizes)}")
        demand = "given without depths and dims, or both of these without model"
        check("model", given == ((self.model is not None),) * 2, demand)
        for name in ("depths", "dims"):
            values = getattr(self, name)
            check(name, values is None or (len(values) == 4 and min(values) > 0), "four positive ints")
        check("stem_stride", self.stem_stride in (1, 2, 4), "1, 2 or 4")
        patch = 8 * self.stem_stride
        check("image_size", self.image_size >= patch, f"at least {patch} for stem_stride={self.stem_stride}")
        for name in ("batch_size", "accumulation", "checkpoint_steps", "max_pixels"):
            check(name, getattr(self, name) > 0, "positive")
        check("batch_size", self.batch_size % self.accumulation == 0, f"a multiple of accumulation={self.accumulation}")
        check("optimizer", self.optimizer in OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}")
        check("weight_decay", self.weight_decay >= 0, "0 or more")
        check("betas", all(0 <= beta < 1 for beta in self.betas), "two numbers from 0 to below 1")
        for name in ("drop_path", "validation_share"):
            check(name, 0 <= getattr(self, name) < 1, "from 0 to below 1")
        check("max_unreadable", 0 <= self.max_unreadable <= 1, "from 0 to 1")
        check("clip_norm", self.clip_norm is None or self.clip_norm > 0, "none or positive")
        check("dtype", self.dtype in DTYPES, f"one of {', '.join(DTYPES)}")
        check("seed", 0 <= self.seed < 2**31, "from 0 to 2147483647")

    def _check(self, name, holds, demand):
        if not holds:
            raise RecipeError(f"{name} must be {demand}. Received: {name}={getattr(self, name)}")

    def check_layer_decay(self):
        """Raises a `RecipeError` if the values of layer_decay, layer_decay_type or ema are invalid."""
        check = self._check
        check("layer_decay", 0 < self.layer_decay <= 1, "above 0 and up to 1")
        check("layer_decay_type", self.layer_decay_type in ("single", "group"), "one of single, group")
        if self.layer_decay_type == "group":
            fits = self.architecture["depths"] == (3, 3, 27, 3)
            check("layer_decay_type", fits, "single for models of other depths than 3,3,27,3")
        check("ema", self.ema is None or 0 < self.ema < 1, "none or between 0 and 1")

    @property
    def step_batch(self):
        """Number of images in a training step; `accumulation` such steps make one optimizer step."""
        return self.batch_size // self.accumulation

    @property
    def architecture(self):
        """The model's depths and dims, as keyword arguments."""
        source = keras_cnv2.sizes.get_size(self.model) if self.model else self
        return {"depths": source.depths, "dims": source.dims}

    def steps_per_pass(self, images):
        """Returns the number of training steps in one pass over `images` images, without an incomplete last batch."""
        if images < self.batch_size:
            raise RecipeError(
                f"batch_size must be at most the number of training images, {images}. "
                f"Received: batch_size={self.batch_size}"
            )
        return images // self.batch_size * self.accumulation


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
        check = self._check
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

    @property
    def parts(self):
        """The parts of the training in order: pairs of a recipe and the number of epochs done when the part ends."""
        return [(self, self.epochs)]

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
        self._check("image_size", self.image_size % patch == 0, f"a multiple of the patch of {patch} pixels")
        self._check("mask_ratio", 0 < self.mask_ratio < 1, "between 0 and 1")
        for name in ("decoder_dim", "decoder_depth"):
            self._check(name, getattr(self, name) > 0, "positive")


@dataclass(frozen=True, kw_only=True)
class Finetuning(Recipe):
    """Supervised training of a classifier, from pre-trained weights or from scratch.

    Args:
        frozen: Whether only the final norm and the head are trained (a linear probe).
        first_size: Height and width of the images in the first epochs, in pixels; smaller ones save time. None for
            image_size in all epochs.
        first_epochs: Number of epochs with first_size.
        layer_decay: Factor on the learning rate from each layer to the one below.
        layer_decay_type: "single": every block is a layer; "group": twelve groups of blocks, for base to huge.
        rand_augment: Magnitude of RandAugment, 0 to 10; 0 for none.
        rand_augment_std: Standard deviation of RandAugment's magnitude.
        erasing: Probability of random erasing.
        cutout: Side in pixels of a square in each image that is filled with the mean colour; 0 for none.
        label_smoothing: Share of the label that is spread over all classes.
        mixup: Alpha of mixup; 0 for none.
        cutmix: Alpha of CutMix; 0 for none.
        head_init: Factor on the initial values of the head; training without weights uses 1.
        ema: Momentum of the moving average of the weights, which is evaluated and saved; none for no average.

    Source: ConvNeXt V2 (arXiv 2301.00808), tables 9 to 13.
    """

    frozen: bool = False
    first_size: int | None = None
    first_epochs: int = 0
    layer_decay: float = 1.0
    layer_decay_type: str = "single"
    rand_augment: float = 0.0
    rand_augment_std: float = 0.5
    erasing: float = 0.0
    cutout: int = 0
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    head_init: float = 1.0
    ema: float | None = None

    def __post_init__(self):
        super().__post_init__()
        check = self._check
        self.check_layer_decay()
        patch = 8 * self.stem_stride
        allowed = f"none or from {patch}, for stem_stride={self.stem_stride}, to image_size={self.image_size}"
        check("first_size", self.first_size is None or patch <= self.first_size <= self.image_size, allowed)
        check("first_epochs", 0 <= self.first_epochs <= self.epochs, f"from 0 to epochs={self.epochs}")
        check("first_epochs", (self.first_epochs > 0) == (self.first_size is not None), "given with first_size")
        check("rand_augment", 0 <= self.rand_augment <= 10, "from 0 to 10")
        for name in ("rand_augment_std", "mixup", "cutmix"):
            check(name, getattr(self, name) >= 0, "0 or more")
        check("cutout", 0 <= self.cutout <= self.image_size, f"from 0 to image_size={self.image_size}")
        for name in ("erasing", "label_smoothing"):
            check(name, 0 <= getattr(self, name) < 1, "from 0 to below 1")
        check("head_init", self.head_init > 0, "positive")

    @property
    def sides(self):
        return (None, None) if self.first_size else super().sides

    @property
    def parts(self):
        if not self.first_size:
            return super().parts
        return [(replace(self, image_size=self.first_size), self.first_epochs), *super().parts]
