"""Show the recipes as tables, named after the tables of the paper."""

from dataclasses import fields

from ..errors import RecipeError
from ..recipes.detection import DETECTION
from ..recipes.images import TABLES
from ..recipes.segmentation import SEGMENTATION
from .config import read_config, recipe_of

# Fields that have other names in the paper's tables.
PAPER_NAMES = {
    "base_lr": "base learning rate",
    "betas": "optimizer momentum",
    "layer_decay": "layer-wise lr decay",
    "layer_decay_type": "layer-wise lr decay type",
    "epochs": "training epochs",
    "crop_area": "RandomResizedCrop",
    "rand_augment": "RandAug",
    "rand_augment_std": "RandAug spread",
    "erasing": "random erasing",
}


def table(rows):
    """Formats recipes as a table for the terminal, as in the paper: one line per field, one column per recipe.

    Args:
        rows: Dict from names to recipes of one class.

    Returns:
        A string. Fields that have their default in all recipes are left out.
    """
    kind = type(next(iter(rows.values())))
    shown = [f.name for f in fields(kind) if any(getattr(row, f.name) != f.default for row in rows.values())]
    lines = [["", *rows]]
    lines += [[_title(name), *(show(getattr(row, name)) for row in rows.values())] for name in shown]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


def _title(name):
    return f"{PAPER_NAMES[name]} ({name})" if name in PAPER_NAMES else name


def show(value):
    """Returns a field's value as text for the command line."""
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return ",".join(map(show, value))
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def all_tables():
    """Returns all recipes: titles -> names -> recipes."""
    return TABLES | {"Segmentation": SEGMENTATION, "Detection": DETECTION}


def add_arguments(parser):
    names = {name for rows in all_tables().values() for name in rows}
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--only", choices=sorted(names), metavar="NAME", help="one recipe")
    source.add_argument("--config", metavar="FILE", help="config.json of a run, whose recipe is shown")


def outcome(args):
    """Runs the command. Returns the recipes: titles -> names -> recipes."""
    if args.config:
        kinds = {type(row).__name__: type(row) for rows in all_tables().values() for row in rows.values()}
        kind = read_config(args.config)["kind"]
        if kind not in kinds:
            raise RecipeError(f"config must be of a run of {', '.join(kinds)}. Received: {args.config}, of {kind}")
        return {kind: {args.config: recipe_of(args.config, kinds[kind])}}
    return all_tables()


def main(args):
    for title, rows in outcome(args).items():
        rows = {name: row for name, row in rows.items() if args.only in (None, name)}
        if rows:
            print(f"{title}\n\n{table(rows)}\n")
