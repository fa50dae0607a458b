"""Figures of segmentation, as PNG files."""

import numpy as np

from .figures import drawable, new_figure, save_figure, shown
from .runs import few_bars

# Weight of the class's colour in a pixel of an overlay; the rest is the picture.
OPACITY = 0.65

# Step from one hue to the next, as a share of the hue circle: the golden angle, which keeps any number of hues apart.
_TURN = (3 - 5**0.5) / 2

# Pairs of saturation and value that alternate, so that classes of similar hue differ in these. After every _STEP
# classes, when hues get close to earlier ones of the same pair, the alternation shifts by one.
_TONES = ((0.85, 0.95), (0.55, 1.0), (0.95, 0.6))
_STEP = 89


def class_colours(count):
    """Returns one fixed, unique colour for each class. The first twenty or so are easy to tell apart.

    Args:
        count: Int, number of classes.

    Returns:
        A uint8 array `(count, 3)`.
    """
    from matplotlib.colors import hsv_to_rgb

    numbers = np.arange(count)
    tones = np.asarray(_TONES)[(numbers + numbers // _STEP) % len(_TONES)]
    return np.uint8(np.round(hsv_to_rgb(np.column_stack([numbers * _TURN % 1, tones])) * 255))


def overlay(pixels, classes):
    """Blends a picture with the colours of its classes; pixels without a class become dark grey.

    Args:
        pixels: Array `(height, width, 3)`, values in 0..255.
        classes: Integer array `(height, width)`, -1 for pixels without a class, e.g. ignored ones.

    Returns:
        A uint8 array `(height, width, 3)`.
    """
    pixels = np.asarray(pixels, "float32")
    colours = class_colours(max(int(classes.max()), 0) + 1)[classes]
    coloured = OPACITY * colours + (1 - OPACITY) * pixels
    grey = pixels.mean(axis=-1, keepdims=True) / 2
    return np.uint8(np.round(np.where(classes[..., None] >= 0, coloured, grey)))


def segmentations(path, images, labels, predictions, class_names):
    """Draws a row for each picture: the picture, its labels, the prediction, and a legend of the classes in both.

    Args:
        path: Path of the PNG to write.
        images: Arrays `(height, width, 3)`, values in 0..255; sizes may differ.
        labels, predictions: An integer array `(height, width)` for each picture. Labels that are no class number get no
            colour.
        class_names: One string for each class.
    """
    from matplotlib.patches import Patch

    count = len(class_names)
    colours = class_colours(count) / 255
    figure = new_figure(11, 2.6 * len(images))
    grid = figure.subplots(len(images), 4, squeeze=False, width_ratios=(3, 3, 3, 2))
    titles = ("picture", "labels", "prediction")
    for row, (pixels, label, prediction) in enumerate(zip(images, labels, predictions)):
        label = np.where((label >= 0) & (label < count), np.int32(label), -1)
        panels = (shown(pixels), overlay(pixels, label), overlay(pixels, prediction))
        for axes, title, picture in zip(grid[row], titles, panels):
            axes.imshow(picture)
            if row == 0:
                axes.set_title(title)
        found = sorted({*np.unique(label), *np.unique(prediction)} - {-1})
        handles = [Patch(color=colours[number], label=drawable(class_names[number])) for number in found]
        grid[row, 3].legend(handles=handles, loc="center left", fontsize=7, frameon=False, ncols=1 + len(found) // 14)
        for axes in grid[row]:
            axes.set_axis_off()
    save_figure(figure, path)


def iou_chart(path, iou, mean):
    """Draws the IoU of each class as a bar, the best at the top, and the mean as a line.

    Args:
        path: Path of the PNG to write.
        iou: Dict from the names of classes to their IoU, `None` for classes in neither labels nor predictions.
        mean: The mean IoU, `None` if there is none.
    """
    colours = dict(zip(iou, class_colours(len(iou)) / 255))
    known, title = few_bars(
        sorted((value, name) for name, value in iou.items() if value is not None),
        "nothing to measure" if mean is None else f"mean IoU {mean:.1%}",
    )
    values, names = [value for value, _ in known], [name for _, name in known]
    figure = new_figure(7, 1.2 + 0.22 * len(known))
    axes = figure.subplots()
    bars = axes.barh(range(len(known)), values, color=[colours[name] for name in names])
    axes.bar_label(bars, [f"{value:.1%}" for value in values], padding=2, fontsize=7)
    if mean is not None:
        axes.axvline(mean, color="black", linewidth=1, linestyle="--")
    axes.set(xlim=(0, 1.08), xlabel="IoU", title=title)
    axes.set_yticks(range(len(known)), [*map(drawable, names)], fontsize=8)
    save_figure(figure, path)
