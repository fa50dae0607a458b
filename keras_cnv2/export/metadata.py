"""Metadata of exports: the images that they take, and the classes of their outputs."""

from keras_cnv2.checkpoints.metadata import metadata_of, own_statistics
from keras_cnv2.images.normalization import channel_statistics
from keras_cnv2.models.heads import takes_pixels
from keras_cnv2.models.pictures import PICTURE_CHANNELS


def exported_metadata(kind):
    """Returns the metadata that every format has.

    Args:
        kind: `keras_cnv2.export.kinds.kind.Kind`, what is exported.

    Returns:
        Dict with "channels" (int) and, where they apply, "class_names" (list), "image_size" (int, or height and
        width), "resize", "mean" and "std" (one value per channel; the export takes `(image - mean) / std` of images in
        0..255), "classifier_activation" (if it is not the default one), "pretrained" (see
        `keras_cnv2.checkpoints.metadata`) and the `thresholds` of a kind that has some.
    """
    (height, width), resize = kind.pictures
    channels = kind.images.shape[-1]
    mean, std = normalization_of(kind.model, channels)
    carried = metadata_of(kind.model)
    found = {
        "class_names": kind.labels and [*kind.labels],
        "image_size": None if None in (height, width) else height if height == width else [height, width],
        "resize": resize,
        "channels": channels,
        "mean": mean,
        "std": std,
        **{name: carried.get(name) for name in ("classifier_activation", "pretrained")},
        **getattr(kind, "thresholds", {}),
    }
    return {name: value for name, value in found.items() if value is not None}


def normalization_of(model, channels):
    """Returns the mean and the standard deviation with which a model's input is normalised, in units of 0..255.

    Each is a list with one value per channel; 0 and 1 if the model normalises images itself. They are `None` for images
    without preprocessing that have neither one nor three channels, and no mean and deviation of their own: only the
    user knows how they are normalised.
    """
    if takes_pixels(model):
        return [0.0] * channels, [1.0] * channels
    own = own_statistics(model)
    if channels not in PICTURE_CHANNELS and None in own:
        return None, None
    return tuple([255 * value for value in values] for values in channel_statistics(channels, *own))
