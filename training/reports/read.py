"""What is known of a run: its folder's JSON files and pictures."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from ..errors import RunError
from ..files import read_json
from ..runs.folder import CHANGES, CONFIG, FOUND, METRICS, PATHS

# The pictures that runs leave behind, as a reader would go through them, and what they show. `learning_curves.png` is
# not among them: a page draws the curves of several runs into one picture.
PICTURES = {
    "reconstructions.png": "Reconstructions",
    "confusion_matrix.png": "Confusion matrix",
    "predictions.png": "Best and worst predictions",
    "overlays.png": "Segmentation beside the labels",
    "iou.png": "Intersection over union of each class",
    "detections.png": "Detections beside the annotations",
    "average_precisions.png": "Average precision of each class",
}
# Pictures that were made several times, of which a page shows the course.
SERIES = "reconstructions"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run, finished or not.

    Args:
        name: What tells it from the others.
        config: Dict, the recipe.
        system: Dict, the packages' versions and the machine.
        history: List of dicts, one an epoch.
        metrics: Dict of what it came to; empty if it is not finished.
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
        """Dict from the names of the classes to their figures."""
        return self.metrics.get("classes") or self.metrics.get("iou") or {}


def find_runs(folders):
    """Reads all runs of some folders.

    Args:
        folders: Paths of runs, or of folders with runs in them.

    Returns:
        The path of the folder that they are in, and a list of `Run`s.

    Raises:
        RunError: If a folder holds none.
    """
    paths = [path for folder in folders for path in _runs_in(Path(folder))]
    paths = [*dict.fromkeys(path.resolve() for path in paths)]
    common = Path(os.path.commonpath(paths))
    names = [path.relative_to(common).as_posix() for path in paths]
    return common, [read_run(path, path.name if name == "." else name) for path, name in zip(paths, names)]


def _runs_in(folder):
    if (folder / CONFIG).exists():
        return [folder]
    # As they came about: the quickstart's pre-training before its fine-tuning.
    found = sorted(folder.glob(f"*/{CONFIG}"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise RunError(f"This is no run's folder, nor does it hold one. Received: {folder}")
    return [path.parent for path in found]


def read_run(folder, name):
    """Reads the run of a folder."""
    config = _read(folder / CONFIG, dict)
    metrics, history = _read(folder / METRICS, dict), _read(folder / "log.json", list)
    beside = [config.pop(name, None) or {} for name in ("versions", "system")]
    for key in (FOUND, PATHS, CHANGES):  # the settings of runs stand side by side, and these are none
        config.pop(key, None)
    tables = [*beside, *(metrics.get(name) or {} for name in ("classes", "iou"))]
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
    """Whether a value from JSON can be counted with: its ints have no limit."""
    if isinstance(value, float):
        return True
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_row(row):
    """Whether this is what was written of an epoch."""
    if not (isinstance(row, dict) and is_number(row.get("epoch"))):
        return False
    return all(value is None or is_number(value) for value in row.values())


def _read(path, kind):
    """What a JSON file of a run holds, a `dict` or a `list`; an empty one if the run did not come to it."""
    return read_json(path, kind) if path.exists() else kind()
