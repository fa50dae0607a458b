"""RetinaNet's anchors, made by KerasCV's `AnchorGenerator`, and the image sizes that they allow."""

import math

from keras import ops

from keras_cnv2.arguments import is_positive_int

# Strides and anchor sizes of the feature maps that the heads read, P3 to P7, in pixels.
STRIDES = (8, 16, 32, 64, 128)
SIZES = (32, 64, 128, 256, 512)

# Three sizes per octave and three aspect ratios.
SCALES = (1, 2 ** (1 / 3), 2 ** (2 / 3))
RATIOS = (0.5, 1.0, 2.0)
ANCHORS = len(SCALES) * len(RATIOS)

# Sides of images must be multiples of the stride of P5, because the pyramid adds upsampled P5 to P4 and P4 to P3, which
# must have exactly twice as many positions along each side. P6 and P7 round up, as the anchors do.
MULTIPLE = 32


def anchor_generator(sizes=SIZES):
    """Returns a `keras_cv.layers.AnchorGenerator` of boxes in "xyxy" format, nine at each position.

    Anchors are not clipped to the image, as in Detectron: clipping would shift their centres.

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
        dtype="float32",  # half precision would round coordinates by several pixels
    )


def all_anchors(generator, shape):
    """Returns the anchors of all levels, from P3 to P7, for images of a given shape.

    Args:
        generator: Anchor generator from `anchor_generator`.
        shape: Shape of the images, `(N, height, width, channels)`.

    Returns:
        A float32 tensor `(A, 4)`.

    Raises:
        ValueError: If height or width is unknown or not a multiple of 32.
    """
    check_sides(shape, are_known=True)
    return ops.concatenate([*generator(image_shape=tuple(shape[1:])).values()], axis=0)


def level_sizes(shape):
    """Returns the number of anchors of each level, for images of shape `(N, height, width, channels)`."""
    return [ANCHORS * math.ceil(shape[1] / stride) * math.ceil(shape[2] / stride) for stride in STRIDES]


def check_sides(shape, are_known=False):
    """Raises a `ValueError` unless the sides of images are multiples of 32.

    Args:
        shape: Shape of the images, `(N, height, width, channels)`.
        are_known: Bool, whether an unknown height or width (`None`) is an error, too.
    """
    sides = tuple(shape[1:3])
    if are_known and None in sides:
        raise ValueError(
            "Anchors need to know the height and width of the images while the graph is built: give the dataset a "
            f"fixed image size (tf.ensure_shape). Received: images of shape {tuple(shape)}"
        )
    if any(side is not None and (side % MULTIPLE or not side) for side in sides):
        raise ValueError(
            f"Detectors take images with sides that are multiples of {MULTIPLE}: pad them at the bottom and right. "
            f"Received: images of shape {tuple(shape)}"
        )


def image_size_for(image_size, shape):
    """Returns the side of images for evaluation: `image_size`, else that of a square input shape, else `None`."""
    sides = {*shape[1:3]}
    if image_size is None:
        return sides.pop() if len(sides) == 1 else None
    if not is_positive_int(image_size) or image_size % MULTIPLE or sides - {None, image_size}:
        raise ValueError(
            f"image_size must be a multiple of {MULTIPLE}, and the backbone's height and width if these are fixed. "
            f"Received: image_size={image_size!r}, backbone with input shape {tuple(shape)}"
        )
    return int(image_size)
