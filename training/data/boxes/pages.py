"""Draws pages of handwritten digits on textured paper, with the box and the mask of each digit. Imports no TensorFlow.

A page depends only on the scans, the seed and the number of the page.
"""

from typing import NamedTuple

import numpy as np

from .masks import boxes_around

# Side of a page in pixels; least and greatest number of digits on it, and side of a digit in pixels, both uniform.
PAGE = 256
COUNTS = (5, 15)
SIDES = (16, 48)

# Largest overlap (IoU) of two boxes, and least share of a digit's stroke that later digits leave visible.
MAX_IOU = 0.3
MIN_VISIBLE = 0.5

# A stroke is where the resized scan exceeds half of the largest intensity.
HALF = 127

# Texture: layers of random values, resized bicubically. Number of values along a side, and their largest size.
TEXTURE = ((4, 20), (24, 10), (96, 6))

# The brightness of a page's colour is outside of these grey levels, so that many colours are far from it. That of a
# digit is at least CONTRAST levels from its page, and from the digits that it covers if a random colour among
# CANDIDATES is; so many that some are always far enough from the page.
MID_GREYS = (75, 180)
CONTRAST = 70
CANDIDATES = 128

# Shares of red, green and blue in the brightness of a colour (ITU-R BT.601).
BRIGHTNESS = np.array([0.299, 0.587, 0.114])


class Page(NamedTuple):
    """A page and its digits, in the order in which they were drawn.

    Args:
        pixels: Uint8 array `(PAGE, PAGE, 3)`.
        boxes: Float32 array `(digits, 4)`: left, top, right, bottom in pixels, tight around the masks.
        classes: Int32 array `(digits,)`, the digits.
        masks: Bool array `(digits, PAGE, PAGE)`: the strokes, without what later digits cover.
    """

    pixels: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    masks: np.ndarray


def draw_page(scans, labels, key):
    """Draws a page.

    Each digit is a random scan of random size, place and colour, blended with what is below by its intensity. A later
    digit may cover part of an earlier one, whose mask and box then hold only what is still visible. A place is drawn
    again if boxes would overlap by more than `MAX_IOU`, or less than `MIN_VISIBLE` of a stroke would remain.

    Args:
        scans: Uint8 array `(N, height, width)`, the digits to draw from, bright on black.
        labels: Int array `(N,)`, 0 to 9.
        key: Sequence of ints that decides the page: seed and number.

    Returns:
        `Page`.
    """
    rng = np.random.default_rng(key)
    page, brightness = _paper(rng)
    count = rng.integers(COUNTS[0], COUNTS[1] + 1)
    chosen = rng.integers(len(scans), size=count)
    strokes, masks, colours = [], np.zeros((0, PAGE, PAGE), bool), np.zeros((0, 3))
    for scan in scans[chosen]:
        intensity = _resized(scan, rng.integers(SIDES[0], SIDES[1] + 1))
        # This ends: even 14 digits of the largest size leave places for one more.
        while True:
            place = _place(len(intensity), rng)
            stroke = np.zeros((PAGE, PAGE), bool)
            stroke[place] = intensity > HALF
            after = np.concatenate([masks & ~stroke, stroke[None]])
            if _is_clear(after, [*strokes, stroke.sum()]):
                break
        covered = (masks & stroke).any(axis=(1, 2))
        colour = _colour(rng, brightness, colours[covered] @ BRIGHTNESS)
        share = intensity[..., None] / np.float32(255)
        page[place] += (colour - page[place]) * share
        strokes, masks, colours = [*strokes, stroke.sum()], after, np.concatenate([colours, colour[None]])
    return Page(np.rint(page).astype("uint8"), boxes_around(masks), labels[chosen].astype("int32"), masks)


def _paper(rng):
    """Returns a textured page without digits, float32, and its mean brightness."""
    low, high = MID_GREYS
    while low < (colour := rng.integers(0, 256, 3)) @ BRIGHTNESS < high:
        pass
    page = np.full((PAGE, PAGE, 3), colour, "float32")
    for values, size in TEXTURE:
        layer = rng.integers(0, 2 * size + 1, (values, values, 3), "uint8")
        page += _resized(layer, PAGE).astype("float32") - size
    page = page.clip(0, 255)
    return page, page.mean(axis=(0, 1)) @ BRIGHTNESS


def _resized(values, side):
    """Resizes uint8 values bicubically. Pillow's arithmetic for them is in integers, the same on all machines."""
    from PIL import Image

    return np.asarray(Image.fromarray(values).resize((int(side), int(side)), Image.BICUBIC))


def _place(side, rng):
    """Returns the rows and columns of a random square in a page, two slices."""
    return tuple(slice(start, start + side) for start in rng.integers(0, PAGE - side + 1, 2).tolist())


def _is_clear(masks, strokes):
    """Returns whether enough is visible of strokes of so many pixels, and no two boxes overlap too much."""
    if (masks.sum(axis=(1, 2)) < MIN_VISIBLE * np.array(strokes)).any():
        return False
    boxes = boxes_around(masks)
    corners, ends = np.split(boxes[:, None], 2, axis=-1)
    sides = np.minimum(ends, boxes[:, 2:]) - np.maximum(corners, boxes[:, :2])
    shared = sides.clip(0).prod(axis=-1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=-1)
    overlaps = shared / (areas[:, None] + areas - shared)
    return (overlaps[np.triu_indices(len(boxes), 1)] <= MAX_IOU).all()


def _colour(rng, page, covered):
    """Returns a random colour that is far enough from the brightness of the page, and as far from that of others."""
    colours = rng.integers(0, 256, (CANDIDATES, 3)).astype("float32")
    readable = colours[np.abs(colours @ BRIGHTNESS - page) >= CONTRAST]
    distances = np.abs((readable @ BRIGHTNESS)[:, None] - covered)
    return readable[distances.min(axis=1, initial=CONTRAST).argmax()]  # the first one that is far from all, if any
