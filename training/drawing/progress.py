"""The progress bar of everything that takes long."""

import sys

from tqdm import tqdm


def progress_bar(**options):
    """A progress bar that counts images; a log file gets few lines of it."""
    return tqdm(unit="img", dynamic_ncols=True, mininterval=0.5 if sys.stderr.isatty() else 30, **options)
