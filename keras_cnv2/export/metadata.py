"""What an export says about itself: for which images it was made, and what its numbers are of."""

from keras_cnv2.checkpoints.metadata import metadata_of
from keras_cnv2.images.normalization import MEAN, STD
from keras_cnv2.models.heads import channels_of, takes_pixels
from keras_cnv2.models.pictures import PICTURE_CHANNELS


def exported_metadata(model, sides, resize=None, labels=None):
    """The metadata of every kind of export.

    Args:
        model: What is exported.
        sides: Height and width of the images that the export takes, or makes of pictures; `None` where they are open.
        resize: How pictures become images, or `None` where they do not.
        labels: Names of the classes, or `None`.

    Returns:
        Dict with "channels" (int) and, as far as they apply, "class_names" (list), "image_size" (int, or height and
        width), "resize", "mean" and "std" (of grey levels in 0..255, one a channel: what `(image - mean) / std` makes
        of pictures is what the export takes), "classifier_activation" (one other than the default) and "pretrained"
        (see `keras_cnv2.checkpoints.metadata`).
    """
    height, width = sides
    normalization = normalization_of(model)
    carried = metadata_of(model)
    found = {
        "class_names": labels and [*labels],
        "image_size": None if None in sides else height if height == width else [height, width],
        "resize": resize,
        "channels": channels_of(model),
        "mean": normalization and normalization[0],
        "std": normalization and normalization[1],
        **{name: carried.get(name) for name in ("classifier_activation", "pretrained")},
    }
    return {name: value for name, value in found.items() if value is not None}


def normalization_of(model):
    """Mean and deviation of grey levels by which pictures become a model's images, a list of one a channel each.

    `None` where images are no pictures, and normalised in a way that only the user knows.
    """
    channels = channels_of(model)
    if takes_pixels(model):
        return [0.0] * channels, [1.0] * channels
    if channels not in PICTURE_CHANNELS:
        return None
    if channels == 3:
        mean, std = MEAN, STD
    else:
        mean, std = ([sum(values) / len(values)] for values in (MEAN, STD))
    return tuple([255 * value for value in values] for values in (mean, std))
