"""Metadata of exports: the images that they take, and the classes of their outputs."""

from keras_cnv2.checkpoints.metadata import metadata_of
from keras_cnv2.images.normalization import MEAN, STD
from keras_cnv2.models.heads import channels_of, takes_pixels
from keras_cnv2.models.pictures import PICTURE_CHANNELS


def exported_metadata(model, sides, resize=None, labels=None):
    """Returns the metadata that every kind of export has.

    Args:
        model: The exported model.
        sides: Height and width of the images that the export takes, or to which it resizes image files; `None` where
            they are variable.
        resize: "crop" or "squash", how image files are resized, or `None` if they are not.
        labels: List of class names, or `None`.

    Returns:
        Dict with "channels" (int) and, where they apply, "class_names" (list), "image_size" (int, or height and
        width), "resize", "mean" and "std" (one value per channel; the export takes `(image - mean) / std` of images in
        0..255), "classifier_activation" (if it is not the default one) and "pretrained" (see
        `keras_cnv2.checkpoints.metadata`).
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
    """Returns the mean and the standard deviation with which a model's input is normalised, in units of 0..255.

    Each is a list with one value per channel; 0 and 1 if the model normalises images itself. Returns `None` for images
    without preprocessing that have neither one nor three channels: only the user knows how they are normalised.
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
