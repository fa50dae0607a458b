"""Which pictures lie below a folder, and what else is there."""

import os
from collections import Counter
from collections.abc import Iterable

from keras_cnv2.images.pictures import SUFFIXES

# How many names a message quotes.
_QUOTED = 3


class LeftOut:
    """What lies among pictures and is not taken, to be said in one line.

    Attributes:
        suffixes: `Counter` of the suffixes of files that are no pictures.
        others: Paths of what is neither a file nor a folder that can be read.
    """

    def __init__(self):
        self.suffixes = Counter()
        self.others = []

    def __bool__(self):
        return bool(self.suffixes or self.others)

    def __str__(self):
        """\"3 .tif, 1 .heic; no files that can be read: a/pipe\"."""
        counts = ", ".join(f"{count} {suffix}" for suffix, count in self.suffixes.most_common())
        quoted = ", ".join(map(repr, self.others[:_QUOTED]))
        rest = f" and {len(self.others) - _QUOTED} more" if len(self.others) > _QUOTED else ""
        others = f"neither files nor folders that can be read: {quoted}{rest}" if self.others else ""
        return "; ".join(filter(None, (counts, others)))


def pictures_below(folder: str | os.PathLike, left_out: LeftOut, suffixes: Iterable[str] = SUFFIXES) -> list[str]:
    """Finds the pictures below a folder.

    Symbolic links are followed, hidden files and folders left out. Each folder is looked at once, however many links
    lead to it.

    Args:
        folder: Its path.
        left_out: Takes what is no picture.
        suffixes: In lower case, what names of pictures end in.

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
    while waiting:  # not a call for each folder: they may lie deeper than Python calls
        entry = waiting.pop()
        try:
            if entry.is_dir():
                waiting += entries_of(entry.path)
            elif not entry.is_file():  # pipes, devices, links to nothing
                left_out.others.append(entry.path)
            elif entry.name.lower().endswith(suffixes):
                files.append(entry.path)
            else:
                left_out.suffixes[os.path.splitext(entry.name)[1].lower() or "without a suffix"] += 1
        except OSError:  # no rights, names that are too long, links to themselves
            left_out.others.append(entry.path)
    return files


def visible(folder: str | os.PathLike) -> list[os.DirEntry]:
    """What is in a folder, in order of the names, but for those that begin with a dot."""
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
