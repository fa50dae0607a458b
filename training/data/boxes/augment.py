"""Large-scale jitter of an encoded picture, its boxes and masks: random scale, random crop. Runs in graphs."""

import functools

import keras
import numpy as np
import tensorflow as tf

from keras_cnv2.images.decode import decode
from keras_cnv2.images.header import picture_size
from keras_cnv2.images.normalization import MEAN
from keras_cnv2.images.orientation import UPRIGHT, stored_window, turned, turned_sides

from ..images.crops import is_jpeg
from ..rescaled_part import pixels_of, resized
from .masks import boxes_around, sample

# ImageNet's mean colour, in 0..255.
FILL = np.float32(MEAN) * 255

# Padding value of boxes and classes.
NOTHING = -1.0


def jitter(contents, boxes, classes, recipe, draws, orientation=UPRIGHT, masks=None):
    """Scales a picture by a random factor, then crops or pads it to a square. Runs in graphs.

    The factor is uniform in `recipe.scale`; factor 1 fits the picture into the square. A side longer than the square is
    cropped at a random position, a shorter one is padded at the right or bottom. Only the part that is kept is
    resized, and for JPEGs also decoded, as in `training.data.images.crops`.

    Args:
        contents: Scalar string tensor, an encoded JPEG, PNG, BMP, WebP or GIF.
        boxes: Float32 tensor `(objects, 4)`: left, top, right, bottom in pixels of the upright picture.
        classes: Integer tensor `(objects,)`.
        recipe: Has `image_size`, the side of the square; `scale`, a pair of floats; `flip`, whether half of the
            pictures are mirrored; `min_box`, the least side of a box in pixels of the square; `max_boxes`.
        draws: `training.data.draws.Draws` of the picture.
        orientation: Int32 scalar, the EXIF orientation, see `keras_cnv2.images.orientation`.
        masks: Optional string tensor `(objects,)`, masks of the upright picture as `training.data.boxes.masks` encodes
            them.

    Returns:
        A float32 image `(image_size, image_size, 3)` in 0..255, resized bilinearly with antialiasing; its boxes,
        float32 `(max_boxes, 4)`, and their classes, float32 `(max_boxes,)`, both padded with -1; and if masks are
        given, these as in `resized_masks`. The boxes of objects that the square cuts are then those of the visible
        part of the mask.

    Source: Simple Copy-Paste (arXiv 2012.07177), section 3: large-scale jittering; here padded with ImageNet's mean
    colour.
    """
    size = recipe.image_size
    jpeg, orientation = is_jpeg(contents), tf.convert_to_tensor(orientation)
    # Other formats than JPEG are decoded once, here.
    pixels = tf.cond(jpeg, lambda: tf.zeros((0, 0, 3), tf.uint8), lambda: turned(decode(contents), orientation))
    sides = turned_sides(stored_sides(contents), orientation)
    scale, start, mirrored = sample_square(tf.cast(sides, tf.float32), recipe, draws)
    # A JPEG is decoded at 1/2, 1/4 or 1/8 of its size if that leaves at least two pixels per pixel of the image.
    halvings = tf.reduce_sum(tf.cast(jpeg & (1 / scale >= [4.0, 8.0, 16.0]), tf.int32))
    reduction = tf.bitwise.left_shift(1, halvings)
    reduced = -(-sides // reduction)
    corner, extent = pixels_of(reduced, scale * tf.cast(reduction, tf.float32), start, size)

    def decoded(reduction):
        box = tf.concat(stored_window(corner, extent, reduced, orientation), 0)
        return tf.image.decode_and_crop_jpeg(contents, box, channels=3, ratio=reduction, dct_method="INTEGER_ACCURATE")

    def of_jpeg():
        pixels = tf.switch_case(halvings, [functools.partial(decoded, 2**number) for number in range(4)])
        return turned(pixels, orientation)

    part = tf.cond(jpeg, of_jpeg, lambda: tf.slice(pixels, tf.pad(corner, [(0, 1)]), tf.concat([extent, [3]], 0)))
    image = resized(part, corner, scale * tf.cast(reduction, tf.float32), start, size)
    image = tf.where(_covered(sides, scale, start, size), image, FILL)
    image = tf.cond(mirrored, lambda: tf.reverse(image, [1]), lambda: image)
    image = tf.ensure_shape(image, (size, size, 3))
    boxes, objects, cut = moved(boxes, (classes, masks), scale, start, mirrored, size, recipe.min_box)
    classes, masks = objects
    if masks is None:
        return image, *padded(boxes, classes, recipe.max_boxes)
    places = _places(sides, scale, start, mirrored, size)
    masks, boxes, kept = _visible_masks(masks, places, boxes, cut, recipe)
    return image, *padded(boxes, tf.boolean_mask(classes, kept), recipe.max_boxes), masks


def stored_sides(contents):
    """Returns height and width of an encoded picture as stored, before it is turned upright: an int32 tensor."""
    return tf.cast(tf.stack(picture_size(contents)), tf.int32)


def sample_square(sides, recipe, draws):
    """Draws a picture's scale, the position of the square in the scaled picture, and whether it is mirrored.

    The position of a mirrored square is measured from the right, so that its padding ends up at the right as well.

    Args:
        sides: Float32 tensor, height and width of the picture in pixels.
        recipe, draws: As in `jitter`.

    Returns:
        The scale; `start`, two floats: top and left of the square in the scaled picture, negative if outside; and
        whether the picture is mirrored, a bool.
    """
    size = float(recipe.image_size)
    low, high = recipe.scale
    at, top, left, turn = tf.unstack(keras.random.uniform((4,), dtype="float32", seed=draws))
    mirrored = turn < (0.5 if recipe.flip else 0.0)
    scale = (low + (high - low) * at) * size / tf.reduce_max(sides)
    # Whole pixels, so that a picture at scale 1 is not interpolated.
    top, left = tf.unstack(tf.floor(tf.stack([top, left]) * tf.maximum(scale * sides - size, 0)))
    return scale, tf.stack([top, tf.where(mirrored, scale * sides[1] - size - left, left)]), mirrored


def _covered(sides, scale, start, size):
    """Returns which pixels of the square have their centre in the picture: bools `(size, size, 1)`."""
    inside = _nearest(sides, scale, start, size) >= 0
    return (inside[:, None, 0] & inside[None, :, 1])[..., None]


def _nearest(sides, scale, start, size):
    """Returns which rows and which columns of the picture are nearest to the centres of the square's pixels.

    Returns:
        An int32 tensor `(size, 2)`, -1 for centres outside of the picture.
    """
    centres = tf.range(size, dtype=tf.float32)[:, None] + 0.5 + start  # (size, 2)
    inside = (centres >= 0) & (centres < scale * tf.cast(sides, tf.float32))
    # Rounding must not lead out of the picture.
    return tf.where(inside, tf.minimum(tf.cast(centres / scale, tf.int32), sides - 1), -1)


def resized_masks(masks, sides, scale, size, count):
    """Resizes masks to fit into the upper left corner of a square: the mask's nearest pixel to each pixel's centre.

    NumPy decodes and resizes them, because TensorFlow has no operation for run lengths, and gathers single bytes three
    times slower.

    Args:
        masks: String tensor `(objects,)`, at most `count` masks of the upright picture, as `training.data.boxes.masks`
            encodes them.
        sides: Int32 tensor, height and width of the picture in pixels.
        scale: Float32 scalar.
        size: Int, the side of the square.
        count: Int, the number of masks to return.

    Returns:
        A uint8 tensor `(count, size, size)`, 1 where the object is. Masks after the given ones are 0.
    """
    places = _places(sides, scale, tf.zeros(2), False, size)
    return _padded_masks(tf.numpy_function(sample, [masks, *places], tf.uint8), size, count)


def _padded_masks(masks, size, count):
    """Pads masks `(objects, size, size)` with 0 to `(count, size, size)`."""
    masks = tf.ensure_shape(masks, (None, size, size))
    masks = tf.pad(masks, [[0, count - tf.shape(masks)[0]], [0, 0], [0, 0]])
    return tf.ensure_shape(masks, (count, size, size))


def _places(sides, scale, start, mirrored, size):
    """Returns height and width of the picture, and which of its rows and columns the square shows, for `sample`."""
    rows, columns = tf.unstack(_nearest(sides, scale, start, size), axis=1)
    return *tf.unstack(sides), rows, tf.where(mirrored, tf.reverse(columns, [0]), columns)


def _visible_masks(masks, places, boxes, cut, recipe):
    """Resizes the masks of the objects in the square, and fits the boxes of those that it cuts to what is visible.

    Objects of which no pixel is visible, or too little, are removed.

    Args:
        masks: String tensor `(objects,)`.
        places: As `_places` returns them.
        boxes, cut: As `moved` returns them.
        recipe: As in `jitter`.

    Returns:
        Masks as in `resized_masks`, boxes `(kept, 4)`, and which objects are kept, bools `(objects,)`.

    Source: mmdetection's `RandomCrop` with `recompute_bbox`, which the large-scale jitter of its ConvNeXt V2 uses; it
    fits the boxes of all objects to whole pixels.
    """

    def visible(masks, height, width, rows, columns, boxes, cut, min_box):
        masks = sample(masks, height, width, rows, columns)
        seen = boxes_around(masks)
        boxes = np.where(cut[:, None], seen, boxes)
        kept = (seen[:, 2] > 0) & (boxes[:, 2:] - boxes[:, :2] >= min_box).all(axis=1)
        return masks if kept.all() else masks[kept], boxes[kept], kept

    values = [masks, *places, boxes, cut, tf.cast(recipe.min_box, tf.float32)]
    masks, boxes, kept = tf.numpy_function(visible, values, (tf.uint8, tf.float32, tf.bool))
    masks = _padded_masks(masks, recipe.image_size, recipe.max_boxes)
    return masks, tf.ensure_shape(boxes, (None, 4)), tf.ensure_shape(kept, [None])


def moved(boxes, objects, scale, start, mirrored, size, min_box):
    """Transforms boxes to the square, clips them, and removes those that become too small.

    Args:
        boxes: Float32 tensor `(objects, 4)` in the picture's pixels.
        objects: What else is known of the objects: a structure of tensors `(objects,)` and `None`.
        scale, start, mirrored: As drawn by `sample_square`. A coordinate x becomes `x * scale - start`; if mirrored,
            `size` minus that.
        size: Int, the side of the square.
        min_box: Float, the least width and height of a clipped box.

    Returns:
        Boxes `(kept, 4)`; a structure of tensors `(kept,)`; and whether boxes were cut off at the border of the square,
        bools `(kept,)`.
    """
    left, top, right, bottom = tf.unstack(boxes * scale - tf.tile(tf.reverse(start, [0]), [2]), axis=-1)
    left, right = tf.where(mirrored, size - right, left), tf.where(mirrored, size - left, right)
    whole = tf.stack([left, top, right, bottom], axis=-1)
    boxes = tf.clip_by_value(whole, 0, size)
    sides = boxes[:, 2:] - boxes[:, :2]
    kept = tf.reduce_all((sides >= min_box) & (sides > 0), axis=-1)
    columns = boxes, objects, tf.reduce_any(boxes != whole, axis=-1)
    return tf.nest.map_structure(lambda column: None if column is None else tf.boolean_mask(column, kept), columns)


def padded(boxes, classes, count):
    """Pads boxes and classes with -1 to `(count, 4)` and `(count,)`, float32.

    Args:
        boxes: Tensor `(objects, 4)`, of at most `count` objects.
        classes: Tensor `(objects,)`.
        count: Int.
    """
    missing = [0, count - tf.shape(boxes)[0]]
    boxes = tf.pad(tf.cast(boxes, tf.float32), [missing, [0, 0]], constant_values=NOTHING)
    classes = tf.pad(tf.cast(classes, tf.float32), [missing], constant_values=NOTHING)
    return tf.ensure_shape(boxes, (count, 4)), tf.ensure_shape(classes, (count,))
