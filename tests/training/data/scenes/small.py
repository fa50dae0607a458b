"""Small pictures with labels, and a recipe for them."""

import numpy as np
from PIL import Image

from training.recipes.segmentation import Segmentation

FIELDS = {
    "depths": (1, 1, 1, 1),
    "dims": (4, 6, 8, 10),
    "image_size": 32,
    "batch_size": 4,
    "lr": 1e-3,
    "iterations": 4,
    "warmup_iterations": 1,
    "report_every": 2,
    "weight_decay": 0.05,
    "betas": (0.9, 0.99),
}


def recipe(**fields):
    return Segmentation(**{**FIELDS, **fields})


def scene(number, height=30, width=40, classes=3):
    """Pixels and labels: rectangles of all classes, and a band of 255 to be ignored."""
    rng = np.random.default_rng(number)
    labels = np.zeros((height, width), "uint8")
    for value in range(1, classes):
        top, left = rng.integers(0, height // 2), rng.integers(0, width // 2)
        labels[top : top + height // 2, left : left + width // 3] = value
    labels[0] = 255
    pixels = np.minimum(labels, classes)[..., None] * [60, 20, 40] + rng.integers(0, 60, (height, width, 3))
    return pixels.astype("uint8"), labels


def write(picture, labels, number, **options):
    """Writes a scene as two PNGs: paths of its picture and its labels."""
    pixels, numbers = scene(number, **options)
    for path, values in ((picture, pixels), (labels, numbers)):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)


def write_folder(path, train=10, validation=3, layout=("{split}", "{split}annot"), names=("train", "val")):
    """Writes a folder of scenes; those of validation have other sizes."""
    for split, numbers in zip(names, (range(train), range(train, train + validation))):
        pictures, labels = (path / folder.format(split=split) for folder in layout)
        for number in numbers:
            width = 40 if number < train else 40 + 4 * (number - train)
            write(pictures / f"{number}.png", labels / f"{number}.png", number, width=width)
    return path
