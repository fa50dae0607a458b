"""Reads a run: the JSON files and pictures in its folder."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from ..errors import RunError
from ..files import read_json
from ..runs.config import CHANGES, FOUND, PATHS
from ..runs.names import CONFIG, METRICS

# Pictures that runs write, in the order of the page, and their captions. `learning_curves.png` is not included: a page
# draws the curves of several runs into one picture.
PICTURES = {
    "reconstructions.png": "Reconstructions",
    "confusion_matrix.png": "Confusion matrix",
    "predictions.png": "Most confident predictions, correct and wrong",
    "overlays.png": "Images, labels and predictions",
    "iou.png": "Intersection over union of each class",
    "detections.png": "Annotations and detections",
    "average_precisions.png": "Average precision of each class",
}
# Folder of pictures from several epochs, which a page shows in sequence.
SERIES = "reconstructions"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run, finished or not.

    Args:
        name: Name of the run, unique on the page.
        config: Dict, the recipe.
        system: Dict, the packages' versions and the machine.
        history: List of dicts, one for each epoch.
        metrics: Dict of the run's results; empty if the run is not finished.
        pictures: Dict from captions to paths.
        series: Paths of pictures, the oldest first.
    """

    name: str
    config: dict
    system: dict
    history: list
    metrics: dict
    pictures: dict
    series: list

    @property
    def classes(self):
        """Dict from class names to their scores."""
        return self.metrics.get("classes") or self.metrics.get("iou") or {}

    @property
    def mask_classes(self):
        """Dict from class names to the scores of their masks; empty if the run's model predicts none."""
        return self.metrics.get("mask_classes") or {}


def find_runs(folders):
    """Reads all runs of some folders.

    Args:
        folders: Paths of runs, or of folders with runs in them.

    Returns:
        The path of the common folder of all runs, and a list of `Run`s.

    Raises:
        RunError: If a folder holds no run.
    """
    paths = [path for folder in folders for path in _runs_in(Path(folder))]
    paths = [*dict.fromkeys(path.resolve() for path in paths)]
    common = Path(os.path.commonpath(paths))
    names = [path.relative_to(common).as_posix() for path in paths]
    return common, [read_run(path, path.name if name == "." else name) for path, name in zip(paths, names)]


def _runs_in(folder):
    if (folder / CONFIG).exists():
        return [folder]
    # In order of time: the quickstart's pre-training comes before its fine-tuning.
    found = sorted(folder.glob(f"*/{CONFIG}"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise RunError(f"This is neither a run's folder nor a folder with runs. Received: {folder}")
    return [path.parent for path in found]


def read_run(folder, name):
    """Reads the run of a folder."""
    config = _read(folder / CONFIG, dict)
    metrics, history = _read(folder / METRICS, dict), _read(folder / "log.json", list)
    beside = [config.pop(name, None) or {} for name in ("versions", "system")]
    for key in (FOUND, PATHS, CHANGES):  # not settings, so the page does not compare them
        config.pop(key, None)
    tables = [*beside, *(metrics.get(name) or {} for name in ("classes", "iou", "mask_classes"))]
    if not (all(isinstance(table, dict) for table in tables) and all(map(_is_row, history))):
        raise RunError(f"The JSON files of this run are damaged; remove its folder. Received: {folder}")
    return Run(
        name=name,
        config=config,
        system={**beside[0], **beside[1]},
        history=history,
        metrics=metrics,
        pictures={caption: folder / file for file, caption in PICTURES.items() if (folder / file).exists()},
        series=sorted((folder / SERIES).glob("*.png")),
    )


def is_number(value):
    """Returns whether a JSON value is a number in the range of a float; JSON's ints have no limit."""
    if isinstance(value, float):
        return True
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_row(row):
    """Returns whether a value has the form of an epoch's row in the log."""
    if not (isinstance(row, dict) and is_number(row.get("epoch"))):
        return False
    return all(value is None or is_number(value) for value in row.values())


def _read(path, kind):
    """Reads a JSON file of a run, a `dict` or a `list`. Returns an empty one if the run has not written it yet."""
    return read_json(path, kind) if path.exists() else kind()
