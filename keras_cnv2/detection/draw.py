"""Draws detections on images."""

import numpy as np

from keras_cnv2.optional_packages import import_pillow
from keras_cnv2.terminal import printable

# One colour per class, repeated if there are more classes. White text is readable on all of them.
COLOURS = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#b8860b", "#8c564b", "#c71585", "#008080", "#555555", "#ff4500")

# Line width and text height, relative to the longer side of the image, and their minimum in pixels.
LINE, LETTERS = 1 / 300, 1 / 45
LEAST_LINE, LEAST_LETTERS = 2, 11

# How much of the colour of its class a mask has.
OPACITY = 0.45


def draw_detections(pixels, detections, names):
    """Draws boxes with class names and scores on an image, and translucent masks if there are any.

    Args:
        pixels: Uint8 array `(height, width, 3)`.
        detections: List of `keras_cnv2.detection.predict.Detection`.
        names: List of strings, the names of all classes. The position of a name determines the colour of its class.

    Returns:
        A uint8 array of the same shape.

    Raises:
        ImportError: If Pillow is not installed.
    """
    Image, ImageDraw, ImageFont = import_pillow("Boxes")
    picture = Image.fromarray(_with_masks(np.asarray(pixels), detections, names))
    draw = ImageDraw.Draw(picture)
    side = max(picture.size)
    line = max(round(side * LINE), LEAST_LINE)
    font = ImageFont.load_default(max(round(side * LETTERS), LEAST_LETTERS))
    for detection in reversed(detections):  # the highest score last, so that it is drawn on top
        colour = _colour(detection, names)
        left, top, right, bottom = detection.box
        draw.rectangle((left, top, max(right - 1, left), max(bottom - 1, top)), outline=colour, width=line)
        text = f"{printable(detection.name)} {detection.score:.2f}"
        width, height = (room + line for room in draw.textbbox((0, 0), text, font=font)[2:])
        place = min(left, max(picture.width - width, 0)), top - height if top >= height else top
        draw.rectangle((*place, place[0] + width, place[1] + height), fill=colour)
        draw.text((place[0] + line // 2, place[1]), text, fill="white", font=font)
    return np.asarray(picture)


def _colour(detection, names):
    return COLOURS[names.index(detection.name) % len(COLOURS)]


def _with_masks(pixels, detections, names):
    """Returns pixels with the masks, where several overlap that of the highest score."""
    drawn = pixels.copy()
    for detection in reversed(detections):
        if detection.mask is not None:
            colour = np.frombuffer(bytes.fromhex(_colour(detection, names)[1:]), "uint8")
            mixed = (1 - OPACITY) * pixels[detection.mask] + OPACITY * colour
            drawn[detection.mask] = np.round(mixed)
    return drawn
