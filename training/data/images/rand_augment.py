"""RandAugment with timm's operations; for differences see `training.data.images.augment`. Imports no TensorFlow."""

import math

import keras
from keras import ops

from keras_cnv2.images.normalization import pixel_statistics

from .affine import affine

# Number of operations for each image, and the largest magnitude.
PICKS = 2
GREATEST_LEVEL = 10

# Weights of red, green and blue in grey (ITU-R BT.601).
LUMA = (0.299, 0.587, 0.114)


def rand_augment(image, magnitude, spread, draws):
    """RandAugment with increasing severity, timm's "rand-m{magnitude}-mstd{spread}-inc1".

    Draws two of the `OPERATIONS` with replacement and applies them in turn, each with probability 0.5 and at its own
    level.

    Args:
        image: Tensor `(H, W, C)`, values in 0..255, one or three channels.
        magnitude, spread: Mean and standard deviation of the levels, which are clipped to 0..10.
        draws: `Draws` of the image.

    Returns:
        A float32 tensor `(H, W, C)`, values in 0..255.

    Raises:
        ValueError: If the image does not have one or three channels.

    Source: RandAugment (arXiv 1909.13719), section 3; severity as in timm.
    """
    image = ops.cast(image, "float32")
    if image.shape[-1] not in (1, 3):
        raise ValueError(f"RandAugment takes images of 1 or 3 channels. Received: shape {tuple(image.shape)}")
    operations = [*OPERATIONS.values()]
    # Half of the numbers lie beyond the last operation and mean no operation.
    picks = keras.random.randint((PICKS,), 0, 2 * len(operations), seed=draws)
    branches = [*operations, lambda image, amount: image]
    levels = keras.random.normal((PICKS,), magnitude, spread, dtype="float32", seed=draws)
    sides = keras.random.uniform((PICKS,), dtype="float32", seed=draws)
    amounts = ops.clip(levels / GREATEST_LEVEL, 0, 1) * ops.where(sides < 0.5, -1.0, 1.0)
    for pick, amount in zip(ops.unstack(picks, PICKS), ops.unstack(amounts, PICKS)):
        image = ops.switch(ops.minimum(pick, len(operations)), branches, image, amount)
    return image


# RandAugment's operations: functions of a float image (H, W, C) and an amount in -1..1. Operations without direction
# use only its absolute value.


def auto_contrast(image, amount):
    """Stretches each channel to 0..255; a constant channel stays unchanged."""
    lowest, highest = (extreme(image, axis=(0, 1), keepdims=True) for extreme in (ops.min, ops.max))
    stretched = (image - lowest) * (255 / ops.maximum(highest - lowest, 1e-3))
    return ops.where(highest > lowest, stretched, image)


def equalize(image, amount):
    """Equalizes the histogram of each channel, with PIL's formula."""
    channels = image.shape[-1]
    # One histogram of 256 * channels bins for all channels.
    bins = ops.cast(ops.round(image), "int32") + 256 * ops.arange(channels, dtype="int32")
    flat = ops.reshape(bins, (-1,))
    counts = ops.reshape(ops.segment_sum(ops.ones_like(flat), flat, 256 * channels), (channels, 256))
    below = ops.cumsum(counts, axis=1) - counts
    step = ops.max(ops.where(counts > 0, below, 0), axis=1, keepdims=True) // 255
    table = ops.where(step > 0, (step // 2 + below) // ops.maximum(step, 1), ops.arange(256, dtype="int32"))
    table = ops.cast(ops.clip(table, 0, 255), "float32")
    return ops.take(ops.reshape(table, (-1,)), bins, axis=0)


def invert(image, amount):
    """Inverts all values."""
    return 255 - image


def rotate(image, amount):
    """Rotates by up to 30 degrees, counterclockwise for a positive amount."""
    angle = amount * math.radians(30)
    sin, cos = ops.sin(angle), ops.cos(angle)
    x, y = (side / 2 for side in _sides(image))
    return _moved(image, (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y))


def shear_x(image, amount):
    """Shifts each row by up to 0.3 of its distance from the top."""
    return _moved(image, (1, 0.3 * amount, 0, 0, 1, 0))


def shear_y(image, amount):
    """Shifts each column by up to 0.3 of its distance from the left."""
    return _moved(image, (1, 0, 0, 0.3 * amount, 1, 0))


def translate_x(image, amount):
    """Shifts horizontally by up to 0.45 of the width."""
    return _moved(image, (1, 0, 0.45 * amount * _sides(image)[0], 0, 1, 0))


def translate_y(image, amount):
    """Shifts vertically by up to 0.45 of the height."""
    return _moved(image, (1, 0, 0, 0, 1, 0.45 * amount * _sides(image)[1]))


def _sides(image):
    """Returns width and height."""
    height, width = ops.shape(image)[:2]
    return ops.cast(width, "float32"), ops.cast(height, "float32")


def _moved(image, coefficients):
    """Applies `affine`, with the mean colour outside the image."""
    mean, _ = pixel_statistics(image.shape[-1])
    return affine(image - mean, coefficients, fill_mode="constant") + mean


def posterize(image, amount):
    """Keeps the upper 4 bits of each value, or up to 4 bits fewer."""
    step = ops.cast(ops.left_shift(16, ops.cast(4 * ops.abs(amount), "int32")), "float32")
    return ops.floor(image / step) * step


def solarize(image, amount):
    """Inverts values at or above a threshold: 256 minus up to 256."""
    return ops.where(image < 256 - ops.floor(256 * ops.abs(amount)), image, 255 - image)


def solarize_add(image, amount):
    """Adds up to 110 to values below 128."""
    return ops.where(image < 128, ops.minimum(image + ops.floor(110 * ops.abs(amount)), 255), image)


def color(image, amount):
    """Decreases or increases the saturation."""
    return _enhanced(image, _grey(image), amount)


def contrast(image, amount):
    """Decreases or increases the contrast to the mean grey."""
    return _enhanced(image, ops.mean(_grey(image)), amount)


def brightness(image, amount):
    """Makes the image darker or brighter."""
    return _enhanced(image, 0, amount)


def sharpness(image, amount):
    """Makes the image smoother or sharper, except for the outermost pixels."""
    mean = ops.average_pool(image[None], 3, 1, "valid", data_format="channels_last")[0]
    # PIL's smoothing filter: 3 x 3 ones with a 5 in the middle, divided by 13.
    smooth = (9 * mean + 4 * image[1:-1, 1:-1]) / 13
    detail = ops.pad(image[1:-1, 1:-1] - smooth, ((1, 1), (1, 1), (0, 0)))
    return _enhanced(image, image - detail, amount)


def _enhanced(image, degenerate, amount):
    factor = ops.maximum(1 + 0.9 * amount, 0.1)
    return ops.clip(degenerate + factor * (image - degenerate), 0, 255)


def _grey(image):
    return ops.sum(image * ops.convert_to_tensor(LUMA, "float32"), -1, keepdims=True) if image.shape[-1] == 3 else image


OPERATIONS = {
    "AutoContrast": auto_contrast,
    "Equalize": equalize,
    "Invert": invert,
    "Rotate": rotate,
    "PosterizeIncreasing": posterize,
    "SolarizeIncreasing": solarize,
    "SolarizeAdd": solarize_add,
    "ColorIncreasing": color,
    "ContrastIncreasing": contrast,
    "BrightnessIncreasing": brightness,
    "SharpnessIncreasing": sharpness,
    "ShearX": shear_x,
    "ShearY": shear_y,
    "TranslateXRel": translate_x,
    "TranslateYRel": translate_y,
}
