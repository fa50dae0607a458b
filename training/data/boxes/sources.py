"""Opens the detection data that a recipe names."""

from pathlib import Path

from ...errors import DataError
from ..reading import options_of
from .coco import PREFIX as COCO_PREFIX
from .digits import DigitPages
from .folders import CocoFolder, VocFolder
from .tfds import TfdsBoxes


def open_boxes(recipe):
    """Opens the pictures with boxes that a recipe names.

    Args:
        recipe: Its `data` is "digits" for pages of handwritten digits, "tfds:NAME" for TensorFlow Datasets, or a folder
            in Pascal VOC or COCO layout. Also has `masks`, `max_boxes`, `validation_share`, `max_unreadable` and
            `seed`.

    Returns:
        `DigitPages`, `TfdsBoxes`, `VocFolder` or `CocoFolder`.

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
    if recipe.data:
        path = Path(recipe.data)
        if recipe.data.startswith("tfds:"):
            return TfdsBoxes(recipe.data.removeprefix("tfds:"), **common)
        if any((path / "annotations").glob(f"{COCO_PREFIX}*.json")):
            return CocoFolder(path, seed=recipe.seed, masks=recipe.masks, **common)
        if (path / "Annotations").is_dir() or (path / "JPEGImages").is_dir():
            return VocFolder(path, seed=recipe.seed, **common)
    raise DataError(
        "data must be digits, tfds:NAME, a folder in the layout of Pascal VOC (Annotations, JPEGImages) or one in that "
        f"of COCO (annotations/{COCO_PREFIX}train*.json). Received: data={recipe.data}"
    )
