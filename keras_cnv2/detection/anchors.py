"""RetinaNet's anchors, made by KerasCV's `AnchorGenerator`, and the image sizes that they fit."""

import math

from keras import ops

# Of the feature maps that the heads look at: P3 to P7.
STRIDES = (8, 16, 32, 64, 128)
SIZES = (32, 64, 128, 256, 512)

# Three sizes an octave, of three shapes.
SCALES = (1, 2 ** (1 / 3), 2 ** (2 / 3))
RATIOS = (0.5, 1.0, 2.0)
ANCHORS = len(SCALES) * len(RATIOS)

# P5 has a position for each 32 pixels. P4 and P3 have to have twice and four times as many for the pyramid to add them;
# P6 and P7 round up, as the anchors do.
MULTIPLE = 32


def anchor_generator(sizes=SIZES):
    """A `keras_cv.layers.AnchorGenerator` of boxes "xyxy", nine at each position.

    Anchors reach beyond the image, as in Detectron: cut at its border, they would have another centre.

    Source: Focal Loss (arXiv 1708.02002), section 4, "Anchors".
    """
    import keras_cv

    return keras_cv.layers.AnchorGenerator(
        bounding_box_format="xyxy",
        sizes=[float(size) for size in sizes],
        scales=[*SCALES],
        aspect_ratios=[*RATIOS],
        strides=[*STRIDES],
        clip_boxes=False,
        dtype="float32",  # never the half precision of the model's policy, in which pixels get lost
    )


def all_anchors(generator, shape):
    """The anchors of all levels, from P3 to P7, for images of a shape.

    Args:
        generator: What `anchor_generator` made.
        shape: Of images, `(N, height, width, channels)`.

    Returns:
        A float32 tensor `(A, 4)`.

    Raises:
        ValueError: If height and width are not known or do not fit.
    """
    check_sides(shape, are_known=True)
    return ops.concatenate([*generator(image_shape=tuple(shape[1:])).values()], axis=0)


def level_sizes(shape):
    """How many anchors each level has, for images of a shape `(N, height, width, channels)`."""
    return [ANCHORS * math.ceil(shape[1] / stride) * math.ceil(shape[2] / stride) for stride in STRIDES]


def check_sides(shape, are_known=False):
    """Raises a `ValueError` unless images of this shape have sides that RetinaNet takes.

    Args:
        shape: `(N, height, width, channels)`.
        are_known: Bool, whether height and width must be there rather than `None`.
    """
    sides = tuple(shape[1:3])
    if are_known and None in sides:
        raise ValueError(
            "Anchors need to know the height and width of the images while the graph is built: give the dataset a "
            f"fixed image size (tf.ensure_shape). Received: images of shape {tuple(shape)}"
        )
    if any(side is not None and (side % MULTIPLE or not side) for side in sides):
        raise ValueError(
            f"RetinaNet takes images with sides that are multiples of {MULTIPLE}: pad them at the bottom and right. "
            f"Received: images of shape {tuple(shape)}"
        )
