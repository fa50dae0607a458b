"""Reads the config.json and preprocessor_config.json that transformers writes for a ConvNeXt V2."""

import logging
import math
import re

from keras_cnv2.arguments import is_positive_int
from keras_cnv2.checkpoints.configuration import Configuration, Fields, statistics, without_none
from keras_cnv2.checkpoints.metadata import is_epsilon
from keras_cnv2.images.pictures import CROP, default_resize

logger = logging.getLogger(__name__)

MODEL_TYPE = "convnextv2"
HEAD = "ConvNextV2ForImageClassification"

# The library's default epsilon of the last norm. All other norms have 1e-6.
EPSILON = 1e-12

# Bicubic, by its number in PIL.
BICUBIC = 3


def from_transformers(config, preprocessor, meta):
    """Returns the `Configuration` that transformers' files describe.

    Args:
        config: Dict, the content of config.json.
        preprocessor: Dict, the content of preprocessor_config.json, or `None`.
        meta: Bool, whether the weights are Meta's own, which were trained with an epsilon of 1e-6 whatever config.json
            says.

    Raises:
        CheckpointError: If they describe a model that is no ConvNeXt V2 of this package, or are invalid.
    """
    fields = Fields("config.json", config)
    if fields.get("model_type") != MODEL_TYPE:
        fields.fail("model_type", f"{MODEL_TYPE!r}: no other model is read here")
    fields.one_of("hidden_act", ("gelu", "gelu_python"), "gelu")
    channels = fields.positive("num_channels", 3)
    names, classes = _classes(fields)
    architectures = fields.get("architectures", [])
    epsilon = fields.get("layer_norm_eps", EPSILON)
    if not is_epsilon(epsilon):
        fields.fail("layer_norm_eps", "a number between 0 and 1")
    size = fields.get("image_size")
    image_size = size if is_positive_int(size) else None
    pictures = _pictures(Fields("preprocessor_config.json", preprocessor or {}))
    if fields.get("auto_map"):
        logger.warning("config.json names Python code of its repository: none of it is run")
    return Configuration(
        file=fields.file,
        depths=fields.four("depths", (3, 3, 9, 3)),
        dims=fields.four("hidden_sizes", (96, 192, 384, 768)),
        stem_stride=fields.one_of("patch_size", (4, 2, 1), 4),
        channels=channels,
        classes=classes,
        has_head=isinstance(architectures, list) and HEAD in architectures,
        metadata={
            **without_none(class_names=names, image_size=image_size, norm_epsilon=None if meta else epsilon),
            **_activation(fields),
            **pictures,
        },
    )


def _activation(fields):
    """Returns the metadata of the activation, by what the outputs are for; by default softmax."""
    kinds = {"multi_label_classification": "sigmoid", "regression": "linear"}
    kind = fields.one_of("problem_type", (*kinds, "single_label_classification"), "single_label_classification")
    return without_none(classifier_activation=kinds.get(kind))


def _classes(fields):
    """Returns the names of the classes and their number; each `None` if it is not known. "LABEL_0" is no name."""
    labels = fields.get("id2label")
    if labels is None:
        return None, fields.positive("num_labels", most=1 << 24)
    held = labels if isinstance(labels, dict) else {}
    numbered = held.keys() == {str(number) for number in range(len(held))}
    if not held or not numbered or not all(isinstance(name, str) for name in held.values()):
        fields.fail("id2label", 'an object with a name for each of "0", "1" and so on')
    names = tuple(labels[str(number)] for number in range(len(labels)))
    return None if all(re.fullmatch(r"LABEL_\d+", name) for name in names) else names, len(names)


def _pictures(fields):
    """Returns the metadata of images: mean and deviation, size, and how image files are resized to it."""
    if fields.get("do_flip_channel_order", False) is True:
        fields.fail("do_flip_channel_order", "false: models here take RGB")
    if not fields.values:
        return {}
    size, resize = _framing(fields) if fields.flag("do_resize", True) else (None, None)
    if fields.get("resample", BICUBIC) != BICUBIC:
        logger.warning("%s: images are resized bicubically here, not as by resample", fields.file)
    # What becomes of a pixel in 0..255: scaled by `factor`, then normalised. Ours is scaled by 1 / 255.
    factor = fields.number("rescale_factor", 1 / 255, lambda value: value > 0, "a positive number")
    scale = 255 * (factor if fields.flag("do_rescale", True) else 1)
    if fields.flag("do_normalize", True):
        mean = fields.per_channel("image_mean", lambda value: True, "numbers")
        std = fields.per_channel("image_std", lambda value: value > 0, "positive numbers")
        if (mean is None) != (std is None):
            fields.fail("image_mean" if mean is None else "image_std", "given, as its counterpart is")
    else:
        mean, std = (0.0,), (1.0,)
    if mean is not None and abs(scale - 1) > 1e-6:
        mean, std = (tuple(value / scale for value in values) for values in (mean, std))
    return {**without_none(image_size=size, resize=resize), **statistics(mean, std)}


def _framing(fields):
    """Returns the side of square images and how image files become them, each `None` if it is not settled."""
    kind = fields.get("image_processor_type") or fields.get("feature_extractor_type") or "ConvNext"
    is_convnext = isinstance(kind, str) and kind.startswith("ConvNext")
    given = fields.get("size")
    size = fields.inner("size") if isinstance(given, dict) else Fields(fields.file, {"shortest_edge": given})
    shortest = size.positive("shortest_edge")
    if is_convnext and shortest:
        fraction = fields.number("crop_pct", CROP, lambda value: 0 < value <= 1, "a number in (0, 1]")
        return shortest, "squash" if default_resize(shortest) == "squash" else _crop(fraction)
    crop = _side(fields, "crop_size") if fields.flag("do_center_crop", False) else None
    if shortest:
        return (crop, _crop(_kept(crop, shortest))) if crop and crop <= shortest else (shortest, "squash")
    side = _side(fields, "size")
    return (side, "squash") if side else (None, None)


def _kept(side, shortest):
    """The fraction that a crop to `side` keeps of a shorter side, such that the crop is cut out of just that size."""
    if int(side / CROP) == shortest:
        return CROP
    fraction = side / shortest
    return fraction if int(side / fraction) == shortest else math.nextafter(fraction, 0)


def _crop(fraction):
    return "crop" if abs(fraction - CROP) < 1e-6 else fraction


def _side(fields, name):
    """Returns the side of a square that is given as an int or as height and width; `None` if it is none."""
    given = fields.get(name)
    if isinstance(given, dict):
        sides = fields.inner(name)
        height, width = sides.positive("height"), sides.positive("width")
        return height if height == width else None
    return fields.positive(name)
