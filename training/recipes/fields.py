"""What a recipe says: frozen fields with the paper's names, and what follows from them.

The optimizer is AdamW, or Muon for the blocks' matrices and AdamW for the rest; without weight decay on anything of
rank 1: norms, biases, GRN, the mask token.
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
    """What all training has in common: data, encoder, optimizer.

    Args:
        data: The data set: a folder of pictures, "tfds:NAME" for TensorFlow Datasets, "digits" for scikit-learn's
            handwritten digits, or an .npz file with train_images, train_labels and, if there are any, test_images and
            test_labels.
        validation_share: Share of the pictures held out where data have no validation split of their own.
        max_unreadable: Largest share of the pictures that may be unreadable, ten anyway; those are named and skipped.
        exif_orientation: Whether pictures are turned and mirrored as their EXIF data say, like viewers show them. Where
            annotations have the size of a picture as it is stored, it is not.
        max_pixels: Height times width of the largest picture that is decoded; larger ones count as unreadable.
        model: Name of a published size, "atto" to "huge"; or give depths and dims.
        depths: Blocks of each stage.
        dims: Channels of each stage.
        stem_stride: 4, or 2 or 1 for small images.
        weights: Weights to start from: the folder of a run, a published tag or a file; none for random values.
        image_size: Height and width of the images, in pixels.
        flip: Whether half of the images are mirrored.
        batch_size: Images an optimizer step, over all devices and accumulated steps.
        optimizer: "adamw", or "muon" for the matrices of the blocks, with AdamW for all other weights.
        weight_decay: Decoupled weight decay.
        betas: AdamW's two decay rates.
        drop_path: Rate of stochastic depth of the last block; it rises linearly from 0.
        accumulation: Steps whose gradients are averaged into one of the optimizer, to save memory.
        clip_norm: Largest norm of all gradients together; none for no clipping.
        dtype: "float32", "mixed_bfloat16", or "mixed_float16" with loss scaling.
        remat: Whether blocks are computed again for their gradients instead of kept (gradient checkpointing).
        checkpoint_steps: Steps between checkpoints within an epoch; there is one at the end of each epoch anyway.
        deterministic: Whether the same seed gives the same numbers to the last bit, at some cost on GPUs.
        seed: Of initial values, order, augmentation, masks and drop path.
    """

    # The optimizer's settings that pre-training does not offer as fields.
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
        check("model", given == ((self.model is not None),) * 2, "given alone, or else depths and dims be given")
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
        """Raises a `RecipeError` if layer-wise decay or the moving average, where a recipe has them, are impossible."""
        check = self._check
        check("layer_decay", 0 < self.layer_decay <= 1, "above 0 and up to 1")
        check("layer_decay_type", self.layer_decay_type in ("single", "group"), "one of single, group")
        if self.layer_decay_type == "group":
            fits = self.architecture["depths"] == (3, 3, 27, 3)
            check("layer_decay_type", fits, "single for models of other depths than 3,3,27,3")
        check("ema", self.ema is None or 0 < self.ema < 1, "none or between 0 and 1")

    @property
    def step_batch(self):
        """Images a step, of which `accumulation` make one of the optimizer."""
        return self.batch_size // self.accumulation

    @property
    def architecture(self):
        """The model's depths and dims, as keyword arguments."""
        source = keras_cnv2.sizes.get_size(self.model) if self.model else self
        return {"depths": source.depths, "dims": source.dims}

    def steps_per_pass(self, images):
        """The number of steps in one pass over so many images; those that fill no whole batch are left out."""
        if images < self.batch_size:
            raise RecipeError(
                f"batch_size must be at most the number of training images, {images}. "
                f"Received: batch_size={self.batch_size}"
            )
        return images // self.batch_size * self.accumulation


def check_scale(scale, mean, deviation):
    """Raises a `RecipeError` for values of an .npz file that are no scale, or no mean and deviation."""
    if scale is not None and not scale > 0:
        raise RecipeError(f"scale must be positive. Received: scale={scale}")
    if scale is not None and mean is not None:
        raise RecipeError(f"scale must be given, or mean and deviation. Received: scale={scale}, mean={mean}")
    if (mean is None) != (deviation is None) or len(mean or ()) != len(deviation or ()):
        raise RecipeError(
            f"mean and deviation must be given together, a number a channel. Received: mean={mean}, "
            f"deviation={deviation}"
        )
    if not all(value > 0 for value in deviation or ()):
        raise RecipeError(f"deviation must be positive numbers. Received: deviation={deviation}")


@dataclass(frozen=True, kw_only=True)
class Recipe(Training):
    """What pre-training and fine-tuning have in common.

    The learning rate rises linearly through the warm-up to `base_lr * batch_size / 256`, and falls by half a cosine or
    in a straight line.

    Args:
        scale: Of an .npz file, the value that counts as white, 255. None for uint8 as it is, and for a mean and a
            deviation where values are others.
        mean: Of an .npz file, the mean of each channel, with a deviation of each: both become those that models expect
            of pictures. None, of values other than uint8: those of train_images, which are logged.
        deviation: Standard deviations to go with the mean.
        train_share: Share of the training pictures that is used, the same of each class: how much few labels tell. Of
            TensorFlow Datasets, the first of the split.
        resize: How pictures become such images in evaluation: "crop" or "squash"; none for the paper's way.
        crop_area: Smallest and largest share of a picture's area that a random resized crop takes.
        shift: By how many pixels an image is moved at most in each direction; free space shows its reflection.
        alternate_flip: Whether an image that is mirrored in one epoch is not in the next, in place of a draw each time.
        epochs: Passes over the training images.
        warmup_epochs: Of these, epochs in which the learning rate rises from 0.
        base_lr: Learning rate for a batch of 256.
        min_lr: Learning rate at the end.
        schedule: How the learning rate falls: "cosine", or "linear", which falls from the first step on, times the
            warm-up.
        grn: Whether Global Response Normalization learns; else it is kept the identity that it begins as, which makes
            the blocks those of ConvNeXt V1, without layer scale.
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
        check("alternate_flip", self.flip or not self.alternate_flip, "false where flip is")
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
        """Height and width of the model's images, `None` where they are free."""
        return self.image_size, self.image_size

    @property
    def parts(self):
        """The parts of the training in order: pairs of a recipe and the number of epochs done at its end."""
        return [(self, self.epochs)]

    def steps_per_epoch(self, images):
        """The number of steps in an epoch: a pass over so many images."""
        return self.steps_per_pass(images)

    def learning_rate(self, updates_per_epoch):
        """The learning rate by the optimizer's steps: a warm-up, then half a cosine or a straight line."""
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
        mask_ratio: Share of hidden patches.
        decoder_dim: Width of the decoder.
        decoder_depth: Blocks of the decoder.
        norm_pix_loss: Whether each patch of the target is normalised.

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
    """Supervised training, from pre-trained weights or from none.

    Args:
        frozen: Whether only the final norm and the head are trained (a linear probe).
        first_size: Height and width of the images in the first epochs, in pixels, which saves time; none for the same
            all along.
        first_epochs: How many epochs these are.
        layer_decay: Factor on the learning rate from each layer to the one below.
        layer_decay_type: "single": every block is a layer; "group": twelve groups of blocks, for base to huge.
        rand_augment: Magnitude of RandAugment, 0 to 10; 0 for none.
        rand_augment_std: Its spread.
        erasing: Probability of random erasing.
        cutout: Side of a square, in pixels, that is the mean colour in each image; 0 for none.
        label_smoothing: Share of the label that is spread over all classes.
        mixup: Mixup's alpha; 0 for none.
        cutmix: CutMix's alpha; 0 for none.
        head_init: Factor on the initial values of the head; without weights to start from, it is 1.
        ema: Momentum of the moving average of the weights, which is what is evaluated and saved; none for no average.

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
