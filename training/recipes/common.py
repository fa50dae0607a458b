"""Fields that all recipes share: frozen dataclasses with the paper's names, and values derived from them.

The optimizer is AdamW, or Muon for the matrices of the blocks and AdamW for the rest. Weights of rank 1 have no weight
decay: norms, biases, GRN, the mask token.
"""

from dataclasses import dataclass

import keras_cnv2.sizes
from keras_cnv2.images.header import MAX_PIXELS

from ..errors import RecipeError

OPTIMIZERS = ("adamw", "muon")
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
        check = self.check
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

    def check(self, name, holds, demand):
        """Raises a `RecipeError` that says what a field must be, unless the demand holds."""
        if not holds:
            raise RecipeError(f"{name} must be {demand}. Received: {name}={getattr(self, name)}")

    def check_layer_decay(self):
        """Raises a `RecipeError` if the values of layer_decay, layer_decay_type or ema are invalid."""
        check = self.check
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

    @property
    def parts(self):
        """The parts of the training in order: pairs of a recipe and the number of epochs done when the part ends."""
        return [(self, self.epochs)]

    def steps_per_pass(self, images):
        """Returns the number of training steps in one pass over `images` images, without an incomplete last batch."""
        if images < self.batch_size:
            raise RecipeError(
                f"batch_size must be at most the number of training images, {images}. "
                f"Received: batch_size={self.batch_size}"
            )
        return images // self.batch_size * self.accumulation
