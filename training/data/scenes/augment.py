"""Turns pictures and their class maps into examples of one size, with random augmentation for training. Runs in graphs.

The augmentation is that of the UPerNet baselines on ADE20K (mmsegmentation): resize by a random ratio, crop, mirror,
change colours, and pad with ImageNet's mean colour and the ignored label. Only the cropped part of a resized picture is
computed.

Differences from mmsegmentation: pictures are shrunk with antialiasing, and colours are not rounded to whole levels in
between.
"""

import keras
import tensorflow as tf

from keras_cnv2.images.normalization import pixel_statistics

from ..rescaled_part import pixels_of, resized

# Maximum ratio of a resized picture's longer side to `short_side`, as for scale (2048, 512) in mmsegmentation.
LONGEST = 4

# A crop is drawn anew if one class covers at least this share of it, up to ATTEMPTS crops in all.
MAX_SHARE = 0.75
ATTEMPTS = 10

# Photometric changes: maximum shift in grey levels, ranges of factors, and maximum shift in turns of the hue circle (18
# of 180 in OpenCV's units).
BRIGHTNESS = 32.0
CONTRAST = (0.5, 1.5)
SATURATION = (0.5, 1.5)
HUE = 0.1


def random_example(pixels, labels, recipe, ignore_label, draws):
    """Makes one augmented training example.

    Args:
        pixels: Tensor `(height, width, 3)`, values in 0..255.
        labels: Int32 tensor `(height, width)`.
        recipe: Has `image_size`, `short_side`, `scale`, `flip` and `photometric`.
        ignore_label: Int, the label of padding.
        draws: `training.data.draws.Draws` of the example.

    Returns:
        A float32 tensor `(image_size, image_size, 3)`, values in 0..255, and int32 labels `(image_size, image_size)`.
    """
    low, high = recipe.scale
    ratio, mirror = tf.unstack(keras.random.uniform((2,), seed=draws))
    size = scaled_size(pixels, recipe.short_side, low + (high - low) * ratio)
    offset, window = random_window(labels, size, recipe.image_size, ignore_label, draws)
    image = resize_image(pixels, size, offset, window)
    labels = resize_labels(labels, size, offset, window)
    if recipe.flip:
        image, labels = (tf.where(mirror < 0.5, tf.reverse(x, [1]), x) for x in (image, labels))
    if recipe.photometric:
        image = photometric(image, draws)
    return pad(image, labels, recipe.image_size, ignore_label)


def fitted_example(pixels, labels, image_size, ignore_label):
    """Fits a whole picture into an example: its longer side becomes `image_size`.

    Arguments and results as in `random_example`.
    """
    size = _scaled(pixels, image_size / tf.reduce_max(_sides(pixels)))
    nowhere = tf.zeros(2, tf.int32)
    image, labels = (resize(x, size, nowhere, size) for resize, x in ((resize_image, pixels), (resize_labels, labels)))
    return pad(image, labels, image_size, ignore_label)


def scaled_size(pixels, short_side, ratio=1.0):
    """Returns the size that a picture is resized to, with its aspect ratio kept.

    Args:
        pixels: Tensor `(height, width, ...)`.
        short_side: Length of the shorter side, or less if the longer side would be more than four times as long.
            `None` keeps the picture's own size.
        ratio: Scalar, a further factor on this size.

    Returns:
        An int32 tensor: height and width.
    """
    if short_side is None:
        return _scaled(pixels, tf.cast(ratio, tf.float64))
    sides = _sides(pixels)
    fitting = tf.minimum(short_side / tf.reduce_min(sides), LONGEST * short_side / tf.reduce_max(sides))
    return _scaled(pixels, fitting * tf.cast(ratio, tf.float64))


def _sides(pixels):
    return tf.cast(tf.shape(pixels)[:2], tf.float64)


def _scaled(pixels, factor):
    return tf.maximum(tf.cast(tf.floor(_sides(pixels) * factor + 0.5), tf.int32), 1)


def random_window(labels, size, side, ignore_label, draws):
    """Draws where to crop: the first of ten random windows where every class covers less than 75 %, else the last.

    Ignored pixels do not count.

    Args:
        labels: Int32 tensor `(height, width)`, before it is resized.
        size: Int32 tensor, the resized height and width.
        side: Int, the crop's height and width. The crop is smaller if the resized picture is smaller.
        ignore_label: Int.
        draws: `training.data.draws.Draws`.

    Returns:
        Two int32 tensors: top and left, height and width, in pixels of the resized picture.
    """
    window = tf.minimum(size, side)
    places = keras.random.uniform((ATTEMPTS, 2), seed=draws)
    # In float32, a value just below 1 times the number of positions may round up to that number.
    offsets = tf.minimum(tf.cast(places * tf.cast(size - window + 1, tf.float32), tf.int32), size - window)

    def is_dull(attempt):
        crop = tf.reshape(resize_labels(labels, size, offsets[attempt], window), [-1])
        counts = tf.unique_with_counts(tf.boolean_mask(crop, crop != ignore_label)).count
        largest, total = tf.reduce_max(tf.pad(counts, [(0, 1)])), tf.reduce_sum(counts)
        return tf.cast(largest, tf.float32) >= MAX_SHARE * tf.cast(total, tf.float32)

    last = ATTEMPTS - 1
    (attempt,) = tf.while_loop(lambda i: (i < last) & is_dull(i), lambda i: [i + 1], [0])
    return offsets[attempt], window


def resize_image(pixels, size, offset, window):
    """Computes a part of a resized picture: bilinear, with antialiasing where it shrinks.

    Args:
        pixels: Tensor `(height, width, 3)`.
        size: Int32 tensor, the resized height and width.
        offset, window: Int32 tensors, top and left, height and width of the part.

    Returns:
        A float32 tensor `(*window, 3)`.
    """
    sides = tf.shape(pixels)[:2]
    scale = tf.cast(size, tf.float32) / tf.cast(sides, tf.float32)
    start = tf.cast(offset, tf.float32)
    corner, extent = pixels_of(sides, scale, start, window)
    part = tf.slice(pixels, tf.pad(corner, [(0, 1)]), tf.concat([extent, [3]], 0))
    return tf.ensure_shape(resized(part, corner, scale, start, window), (None, None, 3))


def resize_labels(labels, size, offset, window):
    """Computes a part of resized labels: the nearest label to each pixel's centre. Arguments as in `resize_image`."""

    def sources(axis):
        # In exact integer arithmetic, because a centre may lie on the border between two pixels.
        centres = 2 * (offset[axis] + tf.range(window[axis])) + 1
        return centres * tf.shape(labels)[axis] // (2 * size[axis])

    return tf.gather(tf.gather(labels, sources(0)), sources(1), axis=1)


def photometric(image, draws):
    """Changes brightness, contrast, saturation and hue, each with probability 0.5.

    Brightness adds or subtracts up to 32 levels; contrast and saturation have a factor in 0.5..1.5; the hue turns by up
    to 36 degrees. The order is this one, or with contrast last, with equal probability. Values are clipped to 0..255
    after each change.

    Args:
        image: Float32 tensor `(height, width, 3)`, values in 0..255.
        draws: `training.data.draws.Draws`.

    Returns:
        A tensor like the image.
    """
    chosen = tf.unstack(keras.random.uniform((5,), seed=draws) < 0.5)
    change = tf.unstack(keras.random.uniform((4,), seed=draws))
    *is_on, contrast_is_early = chosen

    def between(low, high, at):
        return low + (high - low) * at

    def within(image):
        return tf.clip_by_value(image, 0, 255)

    def coloured(is_on, function, image, amount):
        # Skipped when off: these functions are slow, and change colours slightly even with a neutral amount.
        return tf.cond(is_on, lambda: within(function(image, amount)), lambda: image)

    brightness = tf.where(is_on[0], between(-BRIGHTNESS, BRIGHTNESS, change[0]), 0.0)
    contrast = tf.where(is_on[1], between(*CONTRAST, change[1]), 1.0)
    image = within(image + brightness)
    image = within(image * tf.where(contrast_is_early, contrast, 1.0))
    image = coloured(is_on[2], tf.image.adjust_saturation, image, between(*SATURATION, change[2]))
    image = coloured(is_on[3], tf.image.adjust_hue, image, between(-HUE, HUE, change[3]))
    return within(image * tf.where(contrast_is_early, 1.0, contrast))


def pad(image, labels, side, ignore_label):
    """Pads at the bottom and the right: the image with ImageNet's mean colour, labels with `ignore_label`.

    Args:
        image: Float32 tensor `(height, width, 3)`, values in 0..255.
        labels: Int32 tensor `(height, width)`.
        side: Int, height and width of the result.
        ignore_label: Int.

    Returns:
        The tensors `(side, side, 3)` and `(side, side)`.
    """
    missing = [(0, side - length) for length in tf.unstack(tf.shape(labels))]
    inside = tf.pad(tf.ones_like(labels, tf.bool), missing)
    image = tf.where(inside[..., None], tf.pad(image, [*missing, (0, 0)]), pixel_statistics(3)[0])
    labels = tf.pad(labels, missing, constant_values=ignore_label)
    return tf.ensure_shape(image, (side, side, 3)), tf.ensure_shape(labels, (side, side))
