"""Figures of detection, as PNG files."""

import numpy as np

from .figures import drawable, new_figure, save_figure, shown
from .runs import few_bars


def detections(path, images, truths, found, class_names, threshold=0.5):
    """Draws the annotated and the detected boxes of each image side by side.

    Args:
        path: Path of the PNG to write.
        images: Array `(N, H, W, 3)`, values in 0..255.
        truths: Dict of "boxes" `(N, M, 4)`, left, top, right, bottom in the images' pixels, and "classes" `(N, M)`,
            padded with -1.
        found: Dict of "boxes", "classes", "scores" and "count" as returned by a detector.
        class_names: Strings.
        threshold: Float, the least score of a detection that is shown.
    """
    figure = new_figure(8, 4 * len(images))
    grid = figure.subplots(len(images), 2, squeeze=False)
    for n, (row, image) in enumerate(zip(grid, images)):
        there = np.asarray(truths["classes"][n]) >= 0
        sure = (np.arange(len(found["scores"][n])) < found["count"][n]) & (np.asarray(found["scores"][n]) >= threshold)
        for axes, boxes, classes, scores in (
            (row[0], truths["boxes"][n][there], truths["classes"][n][there], None),
            (row[1], found["boxes"][n][sure], found["classes"][n][sure], found["scores"][n][sure]),
        ):
            axes.imshow(shown(image))
            axes.set_axis_off()
            _draw(axes, boxes, classes, scores, class_names)
    grid[0, 0].set_title("annotations")
    grid[0, 1].set_title(f"detections, score at least {threshold:g}")
    save_figure(figure, path)


def _draw(axes, boxes, classes, scores, class_names):
    """Draws boxes with the names of their classes, and their scores if there are any."""
    from matplotlib.patches import Rectangle

    room = max(axes.get_ylim()) / 30  # height of a name above a box; with less room, the name goes inside
    for n, (left, top, right, bottom) in enumerate(boxes):
        number = int(classes[n])
        colour = f"C{number % 10}"
        name = drawable(class_names[number])
        label = name if scores is None else f"{name} {scores[n]:.2f}"
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=1.2))
        axes.text(
            left,
            top,
            label,
            fontsize=6,
            color="white",
            verticalalignment="bottom" if top >= room else "top",
            clip_on=True,
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.5},
        )


def average_precisions(path, classes, title):
    """Draws the AP of each class as a bar, the best at the top.

    Args:
        path: Path of the PNG to write.
        classes: Dict from the names of classes to their AP, `None` for classes without annotations.
        title: String.
    """
    known = sorted(((value, name) for name, value in classes.items() if value is not None), reverse=True)
    known, title = few_bars(known, title)
    values, names = zip(*known) if known else ((), ())
    figure = new_figure(6, 1.2 + 0.25 * len(names))
    axes = figure.subplots()
    bars = axes.barh(range(len(names)), values)
    axes.bar_label(bars, [f"{value:.1%}" for value in values], padding=3, fontsize=8)
    axes.set(yticks=range(len(names)), yticklabels=[*map(drawable, names)], xlim=(0, 1.1), xlabel="AP", title=title)
    axes.invert_yaxis()
    save_figure(figure, path)
