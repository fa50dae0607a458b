"""The study in docs/cifar10.md: do FCMAE and GRN help, also with few labels?

    python -m benchmarks.cifar10 [--data DATA] [--runs FOLDER] [--recipe cifar10_short] ROW...
    python -m benchmarks.cifar10 --table [--picture FILE] [--runs FOLDER]

A row is a size, a way of training, a share of the labels and a seed: "atto-fcmae-tenth-0". Interrupted rows are
resumed, finished rows are kept. A row with FCMAE first pre-trains on all images without labels; this is done once for
each size, and once more without GRN. `--recipe cifar10` needs a GPU.
"""

import argparse
import dataclasses
import itertools
import sys
from pathlib import Path
from statistics import mean

from keras_cnv2.files import check_target
from training.commands import finetune, pretrain
from training.drawing.figures import new_figure, save_figure
from training.recipes.images import FINETUNING, PRETRAINING
from training.runs.folder import finished, read_metrics

SIZES = ("atto", "femto")
WAYS = {
    "fcmae": "pre-trained with FCMAE",
    "scratch": "from scratch",
    "without_grn": "from scratch, without GRN",
    "fcmae_without_grn": "pre-trained with FCMAE, without GRN",
}
SHARES = {"all": 1.0, "tenth": 0.1}
SEEDS = ("0", "1")
ROWS = tuple(map("-".join, itertools.product(SIZES, WAYS, SHARES, SEEDS)))

# Factor on the number of epochs with a tenth of the labels: 0.6 times as many steps as with all labels.
EPOCHS_OF_TENTH = 6


def recipe_of(row, name, data, weights):
    """Returns the fine-tuning recipe of a row.

    Args:
        row: One of `ROWS`.
        name: Name of the recipe.
        data: The recipe's data.
        weights: Folder of the run that a row with FCMAE starts from.
    """
    size, way, share, seed = row.split("-")
    recipe = dataclasses.replace(FINETUNING[name], data=data, model=size, train_share=SHARES[share], seed=int(seed))
    if share == "tenth":
        epochs = {field: EPOCHS_OF_TENTH * getattr(recipe, field) for field in ("epochs", "warmup_epochs")}
        recipe = dataclasses.replace(recipe, **epochs)
    recipe = dataclasses.replace(recipe, grn=not way.endswith("without_grn"))
    if way.startswith("fcmae"):
        return dataclasses.replace(recipe, weights=str(weights))
    return dataclasses.replace(recipe, layer_decay=1.0)  # untrained layers need the full learning rate


def run(row, name, data, folder):
    """Trains a row, after the pre-training that it starts from; skips what is finished."""
    size, way, _, _ = row.split("-")
    weights = folder / f"{size}-{way.replace('fcmae', 'pretraining')}"
    recipe = recipe_of(row, name, data, weights)
    if recipe.weights:
        pretraining = dataclasses.replace(PRETRAINING[name], data=data, model=size, grn=recipe.grn)
        _run(pretrain, pretraining, weights)
    return _run(finetune, recipe, folder / row)


def _run(command, recipe, folder):
    return finished(folder, recipe) or command.run(recipe, folder)


def table(folder):
    """Returns finished rows as a Markdown table: the accuracy for each seed, and the mean if there are several."""
    lines = ["| | labels | " + " | ".join(f"{size}, top-1" for size in SIZES) + " |", "|---" * (2 + len(SIZES)) + "|"]
    for way, share in itertools.product(WAYS, SHARES):
        cells = [_accuracies(folder, f"{size}-{way}-{share}") for size in SIZES]
        if any(cells):
            lines.append(f"| {WAYS[way]} | {SHARES[share]:.0%} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _accuracies(folder, row):
    found = _found(folder, row)
    each = ", ".join(f"{accuracy:.1%}" for accuracy in found)
    return f"{mean(found):.1%} ({each})" if len(found) > 1 else each


def _found(folder, row):
    """Returns the accuracies of the finished seeds."""
    metrics = [read_metrics(folder / f"{row}-{seed}") or {} for seed in SEEDS]
    return [found["top1"] for found in metrics if "top1" in found]


def draw(folder, path):
    """Draws the table: one dot per seed, one line of dots per way of training, one colour per share of labels."""
    figure = new_figure(9, 3)
    axes = figure.subplots(1, len(SIZES), sharex=True, sharey=True)
    for ax, size in zip(axes, SIZES):
        for (share, part), colour in zip(SHARES.items(), ("tab:blue", "tab:orange")):
            dots = [(x, y) for y, way in enumerate(WAYS) for x in _found(folder, f"{size}-{way}-{share}")]
            ax.scatter(*(zip(*dots) if dots else ((), ())), color=colour, alpha=0.7, label=f"{part:.0%} of the labels")
        ax.set_title(size)
        ax.set_xlabel("top-1")
        ax.xaxis.set_major_formatter("{x:.0%}")
        ax.locator_params(axis="x", steps=(1, 2, 5, 10))
        ax.grid(alpha=0.3)
    axes[0].set_yticks(range(len(WAYS)), WAYS.values())
    axes[0].set_ylim(len(WAYS) - 0.5, -0.5)  # from top to bottom, as in the table
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left")
    save_figure(figure, path)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cifar10", description=__doc__.split("\n\n")[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--recipe", choices=("cifar10_short", "cifar10"), default="cifar10_short")
    parser.add_argument("--data", default="tfds:cifar10", help="as in `training finetune` (default: %(default)s)")
    parser.add_argument("--runs", type=Path, default=Path("runs/cifar10"), help="(default: %(default)s)")
    parser.add_argument("--table", action="store_true", help="print the table of what is done")
    parser.add_argument("--picture", type=Path, help="draw it")
    args = parser.parse_args(argv)
    if unknown := {*args.rows} - {*ROWS}:
        parser.error(f"a row is one of {', '.join(ROWS)}. Received: {', '.join(sorted(unknown))}")
    if not (args.rows or args.table or args.picture):
        parser.error("give a ROW, --table or --picture")
    try:
        _do(args)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def _do(args):
    if args.picture:
        check_target(args.picture)
    for row in args.rows:
        metrics = run(row, args.recipe, args.data, args.runs)
        print(f"{row:<24}top-1 {metrics['top1']:.2%}, {metrics['seconds'] / 60:.1f} minutes", flush=True)
    if args.table:
        print(table(args.runs))
    if args.picture:
        draw(args.runs, args.picture)


if __name__ == "__main__":
    main()
