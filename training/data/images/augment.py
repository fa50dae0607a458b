"""Random augmentation of images and labels, as in the paper's code, which uses timm.

Images have values in 0..255, channels last. Everything runs on any backend of Keras, under `jax.jit` and in
`tf.data.Dataset.map` (TensorFlow backend), and imports no TensorFlow. All random numbers come from `Draws`.

Differences from timm:

- Rotated, sheared, shifted and cropped images are interpolated bilinearly, not bicubically. The border of an image
  fades into the fill colour over one pixel, and a crop is interpolated with the pixels around it.
- Images are float and are not rounded to whole grey levels after each operation.
- New pixels get ImageNet's mean colour, not rounded.

Keras's image layers are not used. They need TensorFlow to be installed on every backend, and further:

- `keras.layers.RandAugment` draws its operations once for a batch (in Keras 3.10 once for a whole graph), computes all
  eleven of them for each pick, has no fixed magnitude with a spread, and rotates by up to half a turn.
- `keras.layers.Equalization` uses another formula than PIL.
- `keras.layers.RandomErasing` draws the two sides of a box independently, so the area is not uniform and the aspect
  ratio is not limited.
- `keras.layers.MixUp` and `keras.layers.CutMix` hold a variable, so they cannot be created inside a dataset's `map`.
  They draw a share and a partner for each image, whereas timm draws one share for the batch and pairs it with its
  reverse. CutMix weights labels by the unrounded area of its window, not by the number of its pixels.
"""

from dataclasses import dataclass, fields

import keras
from keras import ops

from keras_cnv2.images.normalization import pixel_statistics

from ...recipes.augmentation import Augmented
from ..draws import Draws
from .affine import affine
from .mixing import mix, soft_labels
from .rand_augment import rand_augment
from .windows import random_boxes, within

# Limits of the aspect ratio, width / height, of a crop and of an erased box.
CROP_RATIO = (3 / 4, 4 / 3)
ERASED_RATIO = (0.3, 1 / 0.3)

# Limits of the share of an image that is erased.
ERASED_AREA = (0.02, 1 / 3)


def over(function, images, draws):
    """Applies a function to every image of a batch.

    On JAX, all images are processed at once. Elsewhere they are processed one by one, so that each image computes only
    the branches that it takes.

    Args:
        function: Takes an image `(H, W, C)` and its `Draws`, returns a tensor.
        images: Tensor `(N, H, W, C)`.
        draws: `Draws` of the batch.

    Returns:
        The results, stacked.
    """
    images = ops.convert_to_tensor(images)
    seed = draws.next()
    each = ops.vectorized_map if keras.backend.backend() == "jax" else ops.map
    positions = ops.arange(ops.shape(images)[0], dtype="int32")
    return each(lambda item: function(item[0], Draws(seed[0], seed[1], item[1])), (images, positions))


def sample_crop(height, width, area, draws):
    """Draws the window of a random resized crop.

    Its share of the image is uniform in `area`, its aspect ratio log-uniform in `CROP_RATIO`. If none of ten such
    windows fits into the image, the result is the largest centred window whose aspect ratio is within the limits.

    Args:
        height, width: Size of the image in pixels; ints or integer scalar tensors.
        area: Pair of floats in `(0, 1]`.
        draws: `Draws`.

    Returns:
        top, left, height and width in pixels, int32 scalars.
    """
    return tuple(ops.unstack(ops.cast(_crops((), height, width, area, draws), "int32"), 4))


def resized_crops(images, area, draws):
    """Crops each image of a batch at random and resizes the crops to the original size.

    Args:
        images: Tensor `(N, H, W, C)`, values in 0..255, any dtype.
        area: Pair of floats in `(0, 1]`, see `sample_crop`. (1.0, 1.0) leaves the images unchanged.
        draws: `Draws` of the batch.

    Returns:
        A float32 tensor `(N, H, W, C)`, or `images`.
    """
    if tuple(area) == (1.0, 1.0):
        return images
    images = ops.cast(images, "float32")
    count, height, width = ops.shape(images)[:3]
    top, left, crop_height, crop_width = ops.unstack(_crops((count,), height, width, area, draws), 4, axis=-1)
    across = (crop_width / ops.cast(width, "float32"), 0, left)
    down = (0, crop_height / ops.cast(height, "float32"), top)
    return affine(images, across + down, fill_mode="nearest")


def _crops(shape, height, width, area, draws):
    height, width = (ops.cast(side, "float32") for side in (height, width))
    boxes = random_boxes(shape, height, width, area, CROP_RATIO, draws)
    low, high = CROP_RATIO
    centre_height = ops.minimum(height, ops.round(width / low))
    centre_width = ops.minimum(width, ops.round(height * high))
    top, left = ((height - centre_height) // 2, (width - centre_width) // 2)
    return ops.where(boxes[..., 2:3] > 0, boxes, ops.stack([top, left, centre_height, centre_width]))


def flip(image, draws):
    """Mirrors an image `(H, W, C)` left to right, with probability 0.5."""
    image = ops.convert_to_tensor(image)
    mirrored = keras.random.uniform((1,), dtype="float32", seed=draws)[0] < 0.5
    return ops.cond(mirrored, lambda: ops.flip(image, axis=1), lambda: image)


def flips(images, draws):
    """Mirrors images `(N, H, W, C)` left to right, each with probability 0.5."""
    images = ops.convert_to_tensor(images)
    mirrored = keras.random.uniform((ops.shape(images)[0], 1, 1, 1), dtype="float32", seed=draws) < 0.5
    return ops.where(mirrored, ops.flip(images, axis=2), images)


def flips_in_turns(images, flipped, epoch):
    """Mirrors images left to right in every other epoch.

    Args:
        images: Tensor `(N, H, W, C)`.
        flipped: Integer tensor `(N,)`, 1 for each image that is mirrored in even epochs, 0 for the others.
        epoch: Int or integer scalar tensor.

    Source: https://github.com/KellerJordan/cifar10-airbench, "alternating flip" (arXiv 2404.00498, section 3.6).
    """
    images = ops.convert_to_tensor(images)
    mirrored = (ops.cast(flipped, "int32") + ops.cast(epoch, "int32")) % 2 == 1
    return ops.where(mirrored[:, None, None, None], ops.flip(images, axis=2), images)


def shift(image, pixels, draws):
    """Shifts an image `(H, W, C)` by up to `pixels` whole pixels along each axis, with reflection at the border."""
    image = ops.convert_to_tensor(image)
    offsets = ops.floor(keras.random.uniform((2,), -pixels, pixels + 1, dtype="float32", seed=draws))
    for axis in (0, 1):
        last = ops.shape(image)[axis] - 1
        places = ops.abs(ops.arange(last + 1, dtype="int32") + ops.cast(offsets[axis], "int32"))
        image = ops.take(image, last - ops.abs(last - places), axis=axis)
    return image


def cutout(image, side, draws):
    """Fills a random square of an image `(H, W, C)`, values in 0..255, with the mean colour. Returns float32.

    Source: Cutout (arXiv 1708.04552), section 3.2; but here the square always lies wholly within the image.
    """
    image = ops.cast(image, "float32")
    height, width, channels = ops.shape(image)
    at = keras.random.uniform((2,), dtype="float32", seed=draws)
    top, left = (ops.floor(place * (length - side + 1)) for place, length in zip(ops.unstack(at, 2), (height, width)))
    mean, _ = pixel_statistics(channels)
    return ops.where(within(height, width, top, left, top + side, left + side), ops.cast(mean, "float32"), image)


def erase(image, probability, draws):
    """Random erasing: with a given probability, fills a random box of the image with noise.

    The box's share of the image is uniform in `ERASED_AREA`, its aspect ratio log-uniform in `ERASED_RATIO`. The noise
    is independent for each value; after normalisation it is standard normal.

    Args:
        image: Tensor `(H, W, C)`, values in 0..255, any dtype.
        probability: Float in `[0, 1]`.
        draws: `Draws` of the image.

    Returns:
        A float32 tensor `(H, W, C)`; the noise may lie outside 0..255.

    Source: Random Erasing (arXiv 1708.04896), section 3; noise as in timm's mode "pixel".
    """
    image = ops.cast(image, "float32")
    height, width, channels = ops.shape(image)
    sides = (ops.cast(side, "float32") for side in (height, width))
    box = random_boxes((), *sides, ERASED_AREA, ERASED_RATIO, draws, margin=1)
    top, left, box_height, box_width = ops.unstack(box, 4)

    def with_noise():
        mean, std = pixel_statistics(channels)
        noise = mean + std * keras.random.normal(ops.shape(image), dtype="float32", seed=draws)
        return ops.where(within(height, width, top, left, top + box_height, left + box_width), noise, image)

    # Drawing noise takes longest, so it is drawn only for images that are erased.
    erases = keras.random.uniform((1,), dtype="float32", seed=draws)[0] < probability
    return ops.cond(erases, with_noise, lambda: image)


@dataclass(frozen=True)
class Augmentation(Augmented):
    """The augmentation of images and labels in fine-tuning, except for crops and flips.

    Args:
        classes: Number of classes.
        **settings: See `training.recipes.augmentation.Augmented`.
    """

    classes: int

    @classmethod
    def of(cls, recipe, classes, **changes):
        """Returns the augmentation of a `training.recipes.fields.Finetuning`; `changes` replace its settings."""
        settings = {field.name: getattr(recipe, field.name) for field in fields(Augmented)}
        return cls(classes, **settings | changes)

    def image(self, image, draws):
        """Augments an image `(H, W, C)` in 0..255: RandAugment, cutout, then erasing, whose noise may exceed 0..255."""
        if self.rand_augment:
            image = rand_augment(image, self.rand_augment, self.rand_augment_std, draws)
        if self.cutout:
            image = cutout(image, self.cutout, draws)
        return erase(image, self.erasing, draws) if self.erasing else image

    def batch(self, images, labels, draws):
        """Augments a batch: soft labels, mixup and CutMix.

        Args:
            images: Tensor `(N, H, W, C)`, values in 0..255, any dtype.
            labels: Integer tensor `(N,)`.
            draws: `Draws` of the batch.

        Returns:
            Images and soft targets `(N, classes)`, float32.
        """
        images = ops.cast(images, "float32")
        return mix(images, soft_labels(labels, self.classes, self.label_smoothing), self.mixup, self.cutmix, draws)
