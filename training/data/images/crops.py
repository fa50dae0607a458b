"""Random resized crops of encoded pictures. Runs in graphs."""

import keras
import tensorflow as tf

from keras_cnv2.images.orientation import stored_window, turned, turned_sides
from keras_cnv2.images.pictures import READING

from . import augment


def random_crop(contents, size, area, flip, draws, reading=READING):
    """Decodes a random part of a picture and resizes it to a square image. Runs in graphs.

    Only that part of a JPEG is decoded. A large part is decoded at 1/2, 1/4 or 1/8 of its size, rounded to whole pixels
    of that size, if each side still has at least twice as many pixels as the image.

    Args:
        contents: Scalar string tensor, an encoded JPEG, PNG, BMP, WebP or GIF.
        size: Int, the side of the image in pixels.
        area: Pair of floats, smallest and largest share of the picture.
        flip: Bool, whether half of the images are mirrored; or a scalar bool tensor, whether this image is mirrored.
        draws: `training.data.draws.Draws` of the image.
        reading: `keras_cnv2.images.pictures.Reading`.

    Returns:
        A float32 tensor `(size, size, 3)`, values in 0..255, resized bicubically with antialiasing.
    """
    orientation = reading.orientation(contents)

    def window(sides):
        """Returns top left corner and size of the crop in the upright picture."""
        box = tf.stack(augment.sample_crop(*tf.unstack(sides), area, draws))
        return box[:2], box[2:]

    def of_jpeg():
        checked = reading.checked(contents, orientation)
        sides = turned_sides(tf.io.extract_jpeg_shape(checked)[:2], orientation)
        corner, extent = window(sides)
        box = tf.concat(stored_window(corner, extent, sides, orientation), 0)

        def at(reduction):
            return tf.image.decode_and_crop_jpeg(
                checked, box // reduction, channels=3, ratio=reduction, dct_method="INTEGER_ACCURATE"
            )

        spare = tf.reduce_min(box[2:]) // (2 * size)
        reductions = tf.reduce_sum(tf.cast(spare >= [2, 4, 8], tf.int32))
        pixels = tf.switch_case(reductions, [lambda: at(1), lambda: at(2), lambda: at(4), lambda: at(8)])
        return turned(pixels, orientation)

    def of_others():
        pixels = reading.pixels(contents, orientation=orientation)
        (top, left), (height, width) = map(tf.unstack, window(tf.shape(pixels)[:2]))
        return pixels[top : top + height, left : left + width]

    pixels = tf.cond(is_jpeg(contents), of_jpeg, of_others)
    if tf.is_tensor(flip):
        mirrored = flip
    else:
        mirrored = keras.random.uniform((), seed=draws) < 0.5 if flip else tf.constant(False)
    return resize(pixels, size, mirrored)


def is_jpeg(contents):
    """Returns whether an encoded picture is a JPEG, by its first bytes."""
    return tf.strings.substr(contents, 0, 3) == b"\xff\xd8\xff"


def resize(pixels, size, mirrored):
    """Resizes pixels `(height, width, 3)` to `(size, size, 3)`, bicubic and antialiased, and optionally mirrors them.

    Resizes in two passes over the first axis, with a transpose in between; one call of TensorFlow's operation for both
    axes gives the same values but takes four times as long. In the second pass, a row is a column of the image,
    channel after channel: both transposes are then of matrices, which is faster than transposing pixels.
    """
    height, width = tf.unstack(tf.shape(pixels)[:2])
    rows = _resize_rows(tf.reshape(pixels, (height, width * 3)), size)
    columns = _resize_rows(tf.reshape(_transpose(rows), (width, 3 * size)), size)
    columns = tf.cond(mirrored, lambda: tf.reverse(columns, [0]), lambda: columns)
    image = tf.reshape(_transpose(tf.reshape(columns, (size * 3, size))), (size, size, 3))
    return tf.clip_by_value(image, 0, 255)


def _resize_rows(rows, count):
    """Resizes `(n, m)` to `(count, m)`."""
    resized = tf.raw_ops.ScaleAndTranslate(
        images=rows[None, None],  # each row is a pixel with m channels
        size=(1, count),
        scale=tf.stack([1.0, count / tf.cast(tf.shape(rows)[0], tf.float32)]),
        translation=(0.0, 0.0),
        kernel_type="keyscubic",
        antialias=True,
    )
    return tf.reshape(resized, (count, -1))


def _transpose(matrix):
    """Transposes a float32 matrix as integers, which TensorFlow does not pass to oneDNN: loader threads wait for it."""
    return tf.bitcast(tf.transpose(tf.bitcast(matrix, tf.int32)), tf.float32)
