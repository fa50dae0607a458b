"""The progress bar of all long operations."""

import sys

from tqdm import tqdm


def progress_bar(**options):
    """Creates a progress bar that counts images; in a log file it prints only every 30 seconds."""
    return tqdm(unit="img", dynamic_ncols=True, mininterval=0.5 if sys.stderr.isatty() else 30, **options)
