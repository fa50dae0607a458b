"""Finds the image files in a folder and its subfolders, and records other files."""

import os
from collections import Counter
from collections.abc import Iterable

from keras_cnv2.images.pictures import SUFFIXES

# Number of paths that a message quotes.
_QUOTED = 3


class LeftOut:
    """Collects what a search for image files skips, and describes it in one line.

    Attributes:
        suffixes: `Counter` of the suffixes of files that are not image files.
        others: List of paths that are neither files nor folders that can be read.
    """

    def __init__(self):
        self.suffixes = Counter()
        self.others = []

    def __bool__(self):
        return bool(self.suffixes or self.others)

    def __str__(self):
        """For example \"3 .tif, 1 .heic; neither files nor folders that can be read: 'a/pipe'\"."""
        counts = ", ".join(f"{count} {suffix}" for suffix, count in self.suffixes.most_common())
        quoted = ", ".join(map(repr, self.others[:_QUOTED]))
        rest = f" and {len(self.others) - _QUOTED} more" if len(self.others) > _QUOTED else ""
        others = f"neither files nor folders that can be read: {quoted}{rest}" if self.others else ""
        return "; ".join(filter(None, (counts, others)))


def pictures_below(folder: str | os.PathLike, left_out: LeftOut, suffixes: Iterable[str] = SUFFIXES) -> list[str]:
    """Finds the image files in a folder and its subfolders.

    Symbolic links are followed; hidden files and folders are skipped. Each folder is searched once, even if several
    links lead to it.

    Args:
        folder: Path of the folder.
        left_out: `LeftOut` that records skipped files.
        suffixes: File name endings of image files, in lower case.

    Returns:
        List of paths, in the same order on every machine.
    """
    suffixes, seen, files = tuple(suffixes), set(), []

    def entries_of(path):
        own = os.stat(path)
        if (own.st_dev, own.st_ino) in seen:
            return []
        seen.add((own.st_dev, own.st_ino))
        return visible(path)[::-1]

    waiting = entries_of(folder)
    while waiting:  # not recursive, because folders may be nested deeper than Python's recursion limit
        entry = waiting.pop()
        try:
            if entry.is_dir():
                waiting += entries_of(entry.path)
            elif not entry.is_file():  # pipes, devices, broken links
                left_out.others.append(entry.path)
            elif entry.name.lower().endswith(suffixes):
                files.append(entry.path)
            else:
                left_out.suffixes[os.path.splitext(entry.name)[1].lower() or "without a suffix"] += 1
        except OSError:  # no permission, names that are too long, links to themselves
            left_out.others.append(entry.path)
    return files


def visible(folder: str | os.PathLike) -> list[os.DirEntry]:
    """Returns the entries of a folder, sorted by name, without those whose names begin with a dot."""
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
