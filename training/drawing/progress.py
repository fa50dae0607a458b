"""The progress bar of all long operations."""

import sys

from tqdm import tqdm


def progress_bar(**options):
    """Creates a progress bar that counts images; in a log file it prints only every 30 seconds."""
    return tqdm(unit="img", dynamic_ncols=True, mininterval=0.5 if sys.stderr.isatty() else 30, **options)


def progress_of(items, total, desc):
    """Returns an iterator over items, which shows a progress bar if it takes longer than five seconds."""
    return progress_bar(iterable=items, total=total, desc=desc, leave=False, delay=5)
