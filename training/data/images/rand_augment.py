"""RandAugment with timm's operations; `training.data.images.augment` says what differs. Imports no TensorFlow."""

import math

import keras
from keras import ops

from keras_cnv2.images.normalization import pixel_statistics

from .affine import affine

# RandAugment: the operations an image goes through, and the scale of their magnitude.
PICKS = 2
GREATEST_LEVEL = 10

# Red, green and blue in grey (ITU-R BT.601).
LUMA = (0.299, 0.587, 0.114)


def rand_augment(image, magnitude, spread, draws):
    """RandAugment with increasing severity, timm's "rand-m{magnitude}-mstd{spread}-inc1".

    Two of the `OPERATIONS` in turn, drawn with replacement, each applied with probability 0.5 at a level of its own.

    Args:
        image: Tensor `(H, W, C)`, values in 0..255, one or three channels.
        magnitude, spread: Mean and standard deviation of the levels, which are cut off at 0 and 10.
        draws: `Draws` of the image.

    Returns:
        A float32 tensor `(H, W, C)`, values in 0..255.

    Raises:
        ValueError: For another number of channels.

    Source: RandAugment (arXiv 1909.13719), section 3; the severity as in timm.
    """
    image = ops.cast(image, "float32")
    if image.shape[-1] not in (1, 3):
        raise ValueError(f"RandAugment takes images of 1 or 3 channels. Received: shape {tuple(image.shape)}")
    operations = [*OPERATIONS.values()]
    # Half of the time beyond the last operation, which stands for none.
    picks = keras.random.randint((PICKS,), 0, 2 * len(operations), seed=draws)
    branches = [*operations, lambda image, amount: image]
    levels = keras.random.normal((PICKS,), magnitude, spread, dtype="float32", seed=draws)
    sides = keras.random.uniform((PICKS,), dtype="float32", seed=draws)
    amounts = ops.clip(levels / GREATEST_LEVEL, 0, 1) * ops.where(sides < 0.5, -1.0, 1.0)
    for pick, amount in zip(ops.unstack(picks, PICKS), ops.unstack(amounts, PICKS)):
        image = ops.switch(ops.minimum(pick, len(operations)), branches, image, amount)
    return image


# RandAugment's operations: functions of a float image (H, W, C) and of an amount in -1..1. Those that have no
# direction look at its size only.


def auto_contrast(image, amount):
    """Stretches each channel to 0..255; one of a single grey stays as it is."""
    lowest, highest = (extreme(image, axis=(0, 1), keepdims=True) for extreme in (ops.min, ops.max))
    stretched = (image - lowest) * (255 / ops.maximum(highest - lowest, 1e-3))
    return ops.where(highest > lowest, stretched, image)


def equalize(image, amount):
    """Spreads the values of each channel so that all are about equally frequent; PIL's formula."""
    channels = image.shape[-1]
    # One histogram for all channels.
    bins = ops.cast(ops.round(image), "int32") + 256 * ops.arange(channels, dtype="int32")
    flat = ops.reshape(bins, (-1,))
    counts = ops.reshape(ops.segment_sum(ops.ones_like(flat), flat, 256 * channels), (channels, 256))
    below = ops.cumsum(counts, axis=1) - counts
    step = ops.max(ops.where(counts > 0, below, 0), axis=1, keepdims=True) // 255
    table = ops.where(step > 0, (step // 2 + below) // ops.maximum(step, 1), ops.arange(256, dtype="int32"))
    table = ops.cast(ops.clip(table, 0, 255), "float32")
    return ops.take(ops.reshape(table, (-1,)), bins, axis=0)


def invert(image, amount):
    """The negative."""
    return 255 - image


def rotate(image, amount):
    """Turns counterclockwise, by up to 30 degrees."""
    angle = amount * math.radians(30)
    sin, cos = ops.sin(angle), ops.cos(angle)
    x, y = (side / 2 for side in _sides(image))
    return _moved(image, (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y))


def shear_x(image, amount):
    """Shifts rows by up to 0.3 of their distance from the top."""
    return _moved(image, (1, 0.3 * amount, 0, 0, 1, 0))


def shear_y(image, amount):
    """Shifts columns by up to 0.3 of their distance from the left."""
    return _moved(image, (1, 0, 0, 0.3 * amount, 1, 0))


def translate_x(image, amount):
    """Shifts by up to 0.45 of the width."""
    return _moved(image, (1, 0, 0.45 * amount * _sides(image)[0], 0, 1, 0))


def translate_y(image, amount):
    """Shifts by up to 0.45 of the height."""
    return _moved(image, (1, 0, 0, 0, 1, 0.45 * amount * _sides(image)[1]))


def _sides(image):
    """Width and height."""
    height, width = ops.shape(image)[:2]
    return ops.cast(width, "float32"), ops.cast(height, "float32")


def _moved(image, coefficients):
    """`affine` with the mean colour outside."""
    mean, _ = pixel_statistics(image.shape[-1])
    return affine(image - mean, coefficients, fill_mode="constant") + mean


def posterize(image, amount):
    """Keeps 4 bits of each value, or up to 4 less."""
    step = ops.cast(ops.left_shift(16, ops.cast(4 * ops.abs(amount), "int32")), "float32")
    return ops.floor(image / step) * step


def solarize(image, amount):
    """Inverts values from 256, or up to 256 less, on."""
    return ops.where(image < 256 - ops.floor(256 * ops.abs(amount)), image, 255 - image)


def solarize_add(image, amount):
    """Adds up to 110 to values below 128."""
    return ops.where(image < 128, ops.minimum(image + ops.floor(110 * ops.abs(amount)), 255), image)


def color(image, amount):
    """Less or more saturated."""
    return _enhanced(image, _grey(image), amount)


def contrast(image, amount):
    """Nearer to or farther from the mean grey."""
    return _enhanced(image, ops.mean(_grey(image)), amount)


def brightness(image, amount):
    """Darker or brighter."""
    return _enhanced(image, 0, amount)


def sharpness(image, amount):
    """Smoother or sharper, all but the outermost pixels."""
    mean = ops.average_pool(image[None], 3, 1, "valid", data_format="channels_last")[0]
    # A filter of 3 x 3 ones with a 5 in the middle.
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
