"""Opens the detection data that a recipe names."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from keras_cnv2.images.folders import visible

from ...errors import DataError
from ..reading import options_of
from .coco import PREFIX as COCO_PREFIX
from .digits import DigitPages
from .folders import CocoFolder, LabelledFolder, VocFolder, YoloFolder
from .labelled import is_labelled
from .tfds import TfdsBoxes
from .yolo import yaml_of


class Layout(NamedTuple):
    """A layout of a folder: its name with what it is recognized by, a function that tests a path, and its source."""

    name: str
    fits: Callable[[Path], object]
    source: type


def _is_voc(path):
    # By the names in the folder: some file systems would find COCO's `annotations` as well.
    return path.is_dir() and any(entry.name in ("Annotations", "JPEGImages") for entry in visible(path))


LAYOUTS = (
    Layout("Pascal VOC (Annotations, JPEGImages)", _is_voc, VocFolder),
    Layout(
        f"COCO (annotations/{COCO_PREFIX}train*.json)",
        lambda path: any((path / "annotations").glob(f"{COCO_PREFIX}*.json")),
        CocoFolder,
    ),
    Layout("YOLO (data.yaml)", yaml_of, YoloFolder),
    Layout("labelled PNGs (images and masks, also in train)", is_labelled, LabelledFolder),
)


def open_boxes(recipe):
    """Opens the pictures with boxes that a recipe names.

    Args:
        recipe: Its `data` is "digits" for pages of handwritten digits, "tfds:NAME" for TensorFlow Datasets, a folder in
            one of `LAYOUTS`, or a YAML file of YOLO. Also has `masks`, `max_boxes`, `validation_share`,
            `max_unreadable` and `seed`.

    Returns:
        `DigitPages`, `TfdsBoxes`, `VocFolder`, `CocoFolder`, `YoloFolder` or `LabelledFolder`.

    Raises:
        DataError: If the data do not exist or are not usable.
    """
    source = _opened(recipe)
    source.check(recipe)
    return source


def _opened(recipe):
    common = options_of(recipe)
    if recipe.data == "digits":
        del common["validation_share"]  # they have validation pages of their own
        return DigitPages(**common)
    if recipe.data and recipe.data.startswith("tfds:"):
        return TfdsBoxes(recipe.data.removeprefix("tfds:"), masks=recipe.masks, **common)
    layout = _layout_of(recipe.data)
    if layout.source is not VocFolder:  # which has no masks
        common["masks"] = recipe.masks
    return layout.source(recipe.data, seed=recipe.seed, **common)


def _layout_of(data):
    """Returns the layout of a folder. Raises a `DataError` if it has none or several."""
    fitting = [layout for layout in LAYOUTS if layout.fits(Path(data))] if data else []
    names = [layout.name for layout in fitting or LAYOUTS]
    if not fitting:
        raise DataError(
            f"data must be digits, tfds:NAME, or a folder in the layout of {', '.join(names[:-1])} or {names[-1]}. "
            f"Received: data={data}"
        )
    if len(fitting) > 1:
        raise DataError(
            f"data has the layouts of {' and of '.join(names)}: remove or rename what is not to be used, or give the "
            f"path of data.yaml itself for YOLO's. Received: data={data}"
        )
    return fitting[0]
