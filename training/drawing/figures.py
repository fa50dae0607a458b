"""What all pictures of a run have in common: their figures, their files, and images of any number of channels."""

from pathlib import Path

import numpy as np

from keras_cnv2.files import replacing


def new_figure(width, height):
    """A Matplotlib figure whose parts keep clear of each other; its sides are in inches."""
    from matplotlib.figure import Figure

    # Not pyplot's, which would keep it until it is closed.
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure, path):
    """Writes a figure, whole or not at all, as the kind of file that the path's ending names."""
    with replacing(Path(path)) as temporary:
        figure.savefig(temporary, dpi=120)


def drawable(name):
    """A user's name as Matplotlib draws it as it is: not as a formula, and in a legend whatever it begins with.

    Args:
        name: String, which may hold what is no Unicode, as names of files do; "?" stands for it.
    """
    name = name.encode(errors="replace").decode().replace("$", r"\$")
    # Legends leave out what begins with an underscore; a space of no width comes before it.
    return f"\u200b{name}" if name.startswith("_") else name


def shown(image):
    """What is drawn of an image: the first three channels, of one or two channels the mean as grey.

    Args:
        image: Array `(H, W, channels)`, values in 0..255.

    Returns:
        A uint8 array `(H, W, 3)`.
    """
    image = np.asarray(image)
    if image.shape[-1] < 3:
        image = np.repeat(image.mean(axis=-1, keepdims=True), 3, axis=-1)
    return np.uint8(np.clip(image[..., :3], 0, 255))
