"""Data source that needs no files: pages of scikit-learn's handwritten digits, with boxes and masks."""

import io

import numpy as np
import tensorflow as tf

from ...drawing.progress import progress_of
from ..images import arrays
from . import masks
from .annotations import Annotations, Example
from .folders import FileBoxes
from .pages import PAGE, draw_page

# Side of a scan in pixels.
SCAN = 8

# Numbers of pages for training and for validation.
PAGES = (1000, 200)

SPLITS = ("train", "validation")

NAMES = tuple("0123456789")


class DigitPages(FileBoxes):
    """Pages drawn by `training.data.boxes.pages`, kept in memory as PNGs.

    Training pages show only the digits that `--data digits` of fine-tuning trains on, validation pages only the others.

    Args:
        pages: Pair of ints, numbers of pages for training and for validation.
        seed: Int. It and the number of a page decide what is on the page.
        **options: `max_unreadable` and `reading` of `training.data.pictures.PictureSource`.

    Raises:
        ImportError: If pycocotools or scikit-learn is not installed.
    """

    def __init__(self, pages=PAGES, seed=0, **options):
        masks.require_pycocotools()
        pictures, examples = [], {split: [] for split in SPLITS}
        for split, count in zip(SPLITS, pages):
            pages_of_split = progress_of(drawn(split, range(count), seed), count, f"drawing pages: {split}")
            for number, page in enumerate(pages_of_split):
                pictures.append(_encoded(page.pixels))
                examples[split].append(_example(page, f"digits/{split}/{number}"))
        with tf.device("cpu"):
            self._pictures = tf.constant(pictures)
        super().__init__(Annotations(*examples.values(), NAMES), **options)

    def look(self, memory=None):
        """Does nothing: there are no files."""

    def _read(self, file, number):
        return self._pictures[number]


def drawn(split, numbers, seed=0):
    """Draws pages one after the other.

    Args:
        split: "train" or "validation", whose digits the pages show.
        numbers: Ints, the numbers of the pages.
        seed: Int.

    Returns:
        A generator of `training.data.boxes.pages.Page`.
    """
    scans, place = arrays.digits(SCAN), SPLITS.index(split)
    images, labels = (scans.train, scans.test)[place]
    return (draw_page(images[..., 0], labels, (seed, place, number)) for number in numbers)


def _encoded(pixels):
    from PIL import Image

    contents = io.BytesIO()
    Image.fromarray(pixels).save(contents, "PNG", compress_level=1)
    return contents.getvalue()


def _example(page, name):
    areas = page.masks.sum(axis=(1, 2)).astype("float32")
    crowd = np.zeros(len(areas), bool)
    return Example(name, name, PAGE, PAGE, page.boxes, page.classes, crowd, areas, masks.encode(page.masks))
