"""Write a page about runs: curves, images, metrics and configuration in one HTML file."""

from pathlib import Path

from keras_cnv2.terminal import printable

from ..files import write_text
from ..reports import page, read


def add_arguments(parser):
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run, or one that holds several")
    parser.add_argument("--out", metavar="FILE", help="(default: report.html in the folder that all runs are in)")


def outcome(args):
    """Runs the command. Returns the page's path."""
    return run(args.runs, args.out)


def main(args):
    print(f"report: {printable(outcome(args))}")


def run(folders, out=None):
    """Writes the page.

    Args:
        folders: Paths of runs, finished or not, or of folders that hold runs, like the quickstart's.
        out: Path of the page; by default report.html in the common folder of all runs.

    Returns:
        The page's path.

    Raises:
        RunError: If a folder holds no run.
    """
    common, found = read.find_runs(folders)
    out = Path(out) if out else common / "report.html"
    write_text(out, page.page(found))
    return out
