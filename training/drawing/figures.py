"""Helpers for all figures: creating and saving them, drawing names, and images of any number of channels."""

from pathlib import Path

import numpy as np

from keras_cnv2.files import replacing


def new_figure(width, height):
    """Creates a Matplotlib figure whose parts do not overlap. Width and height are in inches."""
    from matplotlib.figure import Figure

    # Not with pyplot, which would keep the figure in memory until it is closed.
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure, path):
    """Writes a figure, completely or not at all. The path's suffix decides the file format."""
    with replacing(Path(path)) as temporary:
        figure.savefig(temporary, dpi=120)


def drawable(name):
    """Escapes a name so that Matplotlib draws it literally: not as a formula, and also in legends.

    Args:
        name: String. Characters that are not valid Unicode, as in some file names, become "?".
    """
    name = name.encode(errors="replace").decode().replace("$", r"\$")
    # Legends leave out labels that begin with an underscore, unless a zero-width space comes first.
    return f"\u200b{name}" if name.startswith("_") else name


def shown(image):
    """Returns an image for display: its first three channels, or for one or two channels, their mean as grey.

    Args:
        image: Array `(H, W, channels)`, values in 0..255.

    Returns:
        A uint8 array `(H, W, 3)`.
    """
    image = np.asarray(image)
    if image.shape[-1] < 3:
        image = np.repeat(image.mean(axis=-1, keepdims=True), 3, axis=-1)
    return np.uint8(np.clip(image[..., :3], 0, 255))
