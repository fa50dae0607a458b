"""Segmentation and detection: pre-trained, from scratch, and a ResNet from scratch, with the same recipe and budget.

    python -m benchmarks.dense segment --data CAMVID --weights RUN [--runs FOLDER] [options of `training segment`]
    python -m benchmarks.dense detect --data BCCD --weights RUN [--runs FOLDER] [options of `training detect`]

The runs are done one after the other; an interrupted benchmark is resumed. The ResNet (arXiv 1512.03385) is KerasCV's,
with two bottleneck blocks per stage and half the width of ResNet-50: 0.63 G multiply-accumulates and 3.5 M parameters,
compared with 0.55 G and 3.4 M of atto. It has the same head, data, augmentation, optimizer and number of steps. Its
pyramid levels have no LayerNorm, because their features are already batch-normalised.
"""

import argparse
import dataclasses
from pathlib import Path

from training.commands import options
from training.commands.detect import Detect
from training.commands.run_options import add_run_options
from training.commands.segment import Segment
from training.models.build import new_detector, new_segmenter
from training.runs.folder import finished

HALF_RESNET_26 = {
    "stackwise_filters": (32, 64, 128, 256),
    "stackwise_blocks": (2, 2, 2, 2),
    "stackwise_strides": (1, 2, 2, 2),
    "block_type": "block",
}


def resnet():
    """Returns the ResNet that replaces our encoder."""
    import keras_cv

    return keras_cv.models.ResNetBackbone(
        **HALF_RESNET_26, include_rescaling=True, input_shape=(None, None, 3), name="backbone"
    )


class SegmentWithResNet(Segment):
    """Trains segmentation with the ResNet, without an export: that is for encoders of ours."""

    def new_model(self, weights):
        return new_segmenter(self.recipe, resnet(), self.source.class_names)

    def export(self):
        pass


class DetectWithResNet(Detect):
    """Trains detection with the ResNet, without an export: that is for encoders of ours."""

    def new_model(self, weights):
        return new_detector(self.recipe, resnet(), self.source.class_names)

    def export(self):
        pass


# Commands with our encoder and with the ResNet, and the recipe.
TASKS = {"segment": (Segment, SegmentWithResNet, "camvid"), "detect": (Detect, DetectWithResNet, "bccd")}


def contestants(recipe):
    """Returns the runs: name -> recipe, and whether its encoder is the ResNet."""
    # Untrained layers need the full learning rate.
    scratch = dataclasses.replace(recipe, weights=None, layer_decay=1.0)
    return {
        "scratch": (scratch, False),
        "resnet": (dataclasses.replace(scratch, drop_path=0.0), True),
        "pretrained": (recipe, False),
    }


def row(name, metrics):
    """Formats a run as a line of the table."""
    figure = "mean_iou" if "mean_iou" in metrics else "AP"
    others = {key: metrics[key] for key in ("pixel_accuracy", "AP50", "AP75") if key in metrics}
    figures = {figure: metrics[figure], **others}
    shown = [f"{key} {'of nothing' if value is None else f'{value:.1%}'}" for key, value in figures.items()]
    return f"{name:<12}{', '.join(shown)}; {metrics['parameters']:,} parameters, {metrics['seconds'] / 60:.1f} minutes"


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dense", description=__doc__.split("\n\n")[0])
    tasks = parser.add_subparsers(dest="task", required=True)
    for name, (command, _, default) in TASKS.items():
        task = tasks.add_parser(name, allow_abbrev=False)
        add_run_options(task, f"benchmark_{name}")
        options.add_options(task, command.rows, default)
    args = parser.parse_args(argv)
    ours, others, _ = TASKS[args.task]
    folder = Path(args.runs) / args.name
    for name, (recipe, is_resnet) in contestants(options.chosen_recipe(args, ours.rows)).items():
        command = others if is_resnet else ours
        metrics = finished(folder / name, recipe) or command.run(recipe, folder / name)
        print(row(name, metrics), flush=True)


if __name__ == "__main__":
    main()
