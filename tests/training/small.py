"""A model of a few thousand parameters, data that fit it, and recipes that take a second."""

import numpy as np

from training.data.images.arrays import Arrays, Split
from training.recipes.fields import Finetuning, Pretraining

COMMON = {
    "data": "digits",
    "depths": (1, 1, 1, 1),
    "dims": (4, 6, 8, 10),
    "stem_stride": 1,
    "image_size": 16,
    "resize": "squash",
    "crop_area": (0.5, 1.0),
    "epochs": 2,
    "warmup_epochs": 1,
    "batch_size": 8,
    "base_lr": 0.03,
    "weight_decay": 0.05,
    "betas": (0.9, 0.99),
    "deterministic": True,
}


def pretraining(**fields):
    return Pretraining(**{**COMMON, "decoder_dim": 8, "mask_ratio": 0.5, **fields})


def finetuning(**fields):
    return Finetuning(**{**COMMON, **fields})


def source(train=26, test=11, classes=3, size=16, channels=3):
    """Noise whose mean is the class's: learnable within a few steps."""
    rng = np.random.default_rng(0)

    def split(count):
        labels = (np.arange(count) % classes).astype("int32")
        images = rng.normal(labels[:, None, None, None] * 60 + 60, 20, (count, size, size, channels))
        return Split(images.clip(0, 255).astype("uint8"), labels)

    return Arrays(split(train), split(test) if test else None, [f"class {i}" for i in range(classes)])


# Options of evaluation, and how a model with images of 64 pixels that are squashed gets images by them.
FRAMED = [
    ({}, (64, "squash")),
    ({"image_size": 32}, (32, "crop")),  # the model's way to resize belongs to its size
    ({"resize": "crop"}, (64, "crop")),
    ({"image_size": 32, "resize": "squash"}, (32, "squash")),
]
