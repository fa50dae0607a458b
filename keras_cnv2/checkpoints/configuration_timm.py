"""Reads the config.json that timm writes for a ConvNeXt V2."""

import logging
import re

from keras_cnv2.checkpoints.configuration import Configuration, Fields, statistics, without_none
from keras_cnv2.images.pictures import CROP
from keras_cnv2.sizes import SIZES

logger = logging.getLogger(__name__)

# "convnextv2_tiny", with or without the tag of a checkpoint.
ARCHITECTURE = re.compile(r"convnextv2_([a-z]+)(\.[\w.-]+)?")

# timm's "small" has no published weights.
ARCHITECTURES = {name: (size.depths, size.dims) for name, size in SIZES.items()}
ARCHITECTURES["small"] = ((3, 3, 27, 3), (96, 192, 384, 768))

# Arguments of timm's models that change what they compute, and the only values that models here have.
FIXED = {
    "act_layer": ("gelu",),
    "kernel_sizes": (7,),
    "stem_type": ("patch",),
    "head_norm_first": (False,),
    "head_hidden_size": (),
    "use_grn": (True,),
    "conv_bias": (True,),
    "norm_layer": ("layernorm",),
    "ls_init_value": (),
    "norm_eps": (1e-6,),
}


def from_timm(config):
    """Returns the `Configuration` that timm's config.json describes.

    Args:
        config: Dict, the content of config.json. In files of old versions, the fields of "pretrained_cfg" are its own.

    Raises:
        CheckpointError: If it describes a model that is no ConvNeXt V2 of this package, or is invalid.
    """
    fields = Fields("config.json", config)
    pretrained = fields.inner("pretrained_cfg") if "pretrained_cfg" in config else fields
    arguments = fields.inner("model_args")
    name = fields.get("architecture", pretrained.get("architecture"))
    found = ARCHITECTURE.fullmatch(name) if isinstance(name, str) else None
    if not found or found[1] not in ARCHITECTURES:
        fields.fail("architecture", f"convnextv2_ and one of {', '.join(ARCHITECTURES)}: no other model is read here")
    for argument, allowed in FIXED.items():
        if arguments.get(argument) is not None:
            arguments.one_of(argument, allowed)
    classes = fields.get("num_classes", pretrained.get("num_classes"))
    if classes is not None and (not isinstance(classes, int) or isinstance(classes, bool) or classes < 0):
        fields.fail("num_classes", "an int, 0 or more")
    pool = next((place for place in (arguments, fields) if place.get("global_pool") is not None), fields)
    pool.one_of("global_pool", ("avg",) if classes else ("avg", "max", ""), "avg")
    depths, dims = ARCHITECTURES[found[1]]
    dims = arguments.four("dims", dims)
    if fields.get("num_features", dims[3]) != dims[3]:
        fields.fail("num_features", f"that of {name}, {dims[3]}")
    channels = arguments.positive("in_chans")
    # Here, only backbones have dilations.
    output_stride = arguments.one_of("output_stride", (32,) if classes else (8, 16, 32), 32)
    licence = pretrained.get("license")
    return Configuration(
        file=fields.file,
        depths=arguments.four("depths", depths),
        dims=dims,
        stem_stride=arguments.one_of("patch_size", (4, 1), 4),  # with 2, timm's first stage halves the map once more
        channels=channels,
        classes=classes,
        has_head=bool(classes),
        metadata=without_none(
            class_names=_class_names(fields, pretrained, classes),
            output_stride=None if output_stride == 32 else output_stride,
            pooling="max" if pool.get("global_pool") == "max" else None,
            **_pictures(pretrained),
        ),
        licence=licence if isinstance(licence, str) else None,
    )


def _class_names(fields, pretrained, classes):
    """Returns the names of the classes, `None` without names: the descriptions of the labels, or else the labels."""
    holder = next(
        (
            (place, name)
            for place in (fields, pretrained)
            for name in ("label_names", "labels")
            if place.get(name) is not None
        ),
        None,
    )
    if holder is None or not classes:
        return None
    place, name = holder
    labels = place.get(name)
    if isinstance(labels, dict):  # by number
        labels = [labels.get(str(number)) for number in range(len(labels))]
    if not isinstance(labels, list) or len(labels) != classes or not all(isinstance(label, str) for label in labels):
        place.fail(name, f"a list of {classes} names, one for each class")
    descriptions = fields.get("label_descriptions", pretrained.get("label_descriptions"))
    if isinstance(descriptions, list) and len(descriptions) == classes:
        descriptions = dict(zip(labels, descriptions))
    told = descriptions if isinstance(descriptions, dict) else {}
    return tuple(told.get(label) if isinstance(told.get(label), str) else label for label in labels)


def _pictures(fields):
    """Returns the metadata of images: mean and deviation, size, and how image files are resized to it."""
    size = fields.get("input_size", [3, None, None])
    if not isinstance(size, list) or len(size) != 3:
        fields.fail("input_size", "channels, height and width")
    sides = [Fields(fields.file, {"input_size": side}).positive("input_size") for side in size[1:]]
    fraction = fields.number("crop_pct", CROP, lambda value: 0 < value <= 1, "a number in (0, 1]")
    mode = fields.one_of("crop_mode", ("center", "squash", "border"), "center")
    if fields.get("interpolation", "bicubic") != "bicubic":
        logger.warning("%s: images are resized bicubically here, not as by interpolation", fields.file)
    if mode == "border" or (mode == "squash" and fraction < 1):
        logger.warning("%s: crop_mode %r with crop_pct %g is only approximated", fields.file, mode, fraction)
    crop = "crop" if abs(fraction - CROP) < 1e-6 else fraction
    mean = fields.per_channel("mean", lambda value: True, "numbers")
    std = fields.per_channel("std", lambda value: value > 0, "positive numbers")
    if (mean is None) != (std is None):
        fields.fail("mean" if mean is None else "std", "given, as its counterpart is")
    return {
        "image_size": sides[0] if sides[0] == sides[1] else None,
        "resize": "squash" if mode == "squash" else crop,
        **statistics(mean, std),
    }
