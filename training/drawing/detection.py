"""Figures of detection, as PNG files."""

import numpy as np
from keras import ops

from keras_cnv2.detection import paste_masks

from .figures import drawable, new_figure, save_figure, shown
from .runs import few_bars

# How much of the colour of its class a mask has.
OPACITY = 0.45


def detections(path, images, truths, found, class_names, threshold=0.5):
    """Draws the annotated and the detected boxes of each image side by side, and their masks if there are any.

    Args:
        path: Path of the PNG to write.
        images: Array `(N, H, W, 3)`, values in 0..255.
        truths: Dict of "boxes" `(N, M, 4)`, left, top, right, bottom in the images' pixels, and "classes" `(N, M)`,
            padded with -1; and optionally "masks" `(N, M, H, W)`, not 0 where an object is.
        found: Dict of "boxes", "classes", "scores" and "count" as returned by a detector, and optionally "masks", the
            probabilities within the boxes.
        class_names: Strings.
        threshold: Float, the least score of a detection that is shown.
    """
    figure = new_figure(8, 4 * len(images))
    grid = figure.subplots(len(images), 2, squeeze=False)
    for n, (row, image) in enumerate(zip(grid, images)):
        there = np.asarray(truths["classes"][n]) >= 0
        sure = (np.arange(len(found["scores"][n])) < found["count"][n]) & (np.asarray(found["scores"][n]) >= threshold)
        annotated = {name: np.asarray(column[n])[there] for name, column in truths.items()}
        detected = {name: np.asarray(found[name][n])[sure] for name in found if name != "count"}
        if "masks" in detected:
            detected["masks"] = _pasted(detected["masks"], detected["boxes"], image.shape)
        for axes, objects in zip(row, (annotated, detected)):
            _show(axes, image, objects, class_names)
    grid[0, 0].set_title("annotations")
    grid[0, 1].set_title(f"detections, score at least {threshold:g}")
    save_figure(figure, path)


def annotations(path, images, objects, class_names):
    """Draws images side by side, and below each the same image with its boxes, and its masks if there are any.

    Args:
        path: Path of the PNG to write.
        images: Arrays `(H, W, 3)`, values in 0..255.
        objects: A dict for each image: "boxes" `(M, 4)`, left, top, right, bottom in the image's pixels, "classes"
            `(M,)`, and optionally "masks" `(M, H, W)`, not 0 where an object is.
        class_names: Strings.
    """
    figure = new_figure(2.5 * len(images), 5)
    grid = figure.subplots(2, len(images), squeeze=False)
    for column, image, own in zip(grid.T, images, objects):
        _show(column[0], image, {}, class_names)
        _show(column[1], image, own, class_names)
    save_figure(figure, path)


def _show(axes, image, objects, class_names):
    """Draws an image and the objects in it, a dict of arrays that may be empty."""
    axes.imshow(shown(image))
    axes.set_axis_off()
    if "masks" in objects:
        axes.imshow(_overlay(objects["masks"], objects["classes"], image.shape))
    if "boxes" in objects:
        _draw(axes, objects["boxes"], objects["classes"], objects.get("scores"), class_names)


def _pasted(masks, boxes, shape):
    """Returns which pixels of the image detections cover, bools `(detections, H, W)`."""
    if not len(masks):
        return np.zeros((0, *shape[:2]), bool)
    pasted = paste_masks(np.float32(masks[None]), np.float32(boxes[None]), *shape[:2])
    return ops.convert_to_numpy(pasted)[0] >= 0.5


def _overlay(masks, classes, shape):
    """Returns the masks in the colours of their classes, RGBA; the first one, which is the surest, lies on top."""
    from matplotlib.colors import to_rgba

    overlay = np.zeros((*shape[:2], 4))
    for mask, number in zip(masks[::-1], classes[::-1]):
        overlay[mask != 0] = to_rgba(_colour(number), OPACITY)
    return overlay


def _colour(number):
    return f"C{int(number) % 10}"


def _draw(axes, boxes, classes, scores, class_names):
    """Draws boxes with the names of their classes, and their scores if there are any."""
    from matplotlib.patches import Rectangle

    room = max(axes.get_ylim()) / 30  # height of a name above a box; with less room, the name goes inside
    for n, (left, top, right, bottom) in enumerate(boxes):
        colour = _colour(classes[n])
        name = drawable(class_names[int(classes[n])])
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


def average_precisions(path, classes, title, masks=None):
    """Draws the AP of each class as a bar, the best at the top.

    Args:
        path: Path of the PNG to write.
        classes: Dict from the names of classes to their AP, `None` for classes without annotations.
        title: String.
        masks: Optional dict of the same names, the AP of the masks, which are drawn below those of the boxes.
    """
    known = sorted(((value, name) for name, value in classes.items() if value is not None), reverse=True)
    known, title = few_bars(known, title)
    names = [name for _, name in known]
    series = {"boxes": classes} | ({"masks": masks} if masks else {})
    thick = 0.8 / len(series)
    figure = new_figure(6, 1.2 + 0.25 * len(names) * len(series))
    axes = figure.subplots()
    for number, (label, values) in enumerate(series.items()):
        places = [place + (number - (len(series) - 1) / 2) * thick for place in range(len(names))]
        values = [values[name] for name in names]
        bars = axes.barh(places, values, thick, label=label)
        axes.bar_label(bars, [f"{value:.1%}" for value in values], padding=3, fontsize=8)
    axes.set(yticks=range(len(names)), yticklabels=[*map(drawable, names)], xlim=(0, 1.1), xlabel="AP", title=title)
    axes.invert_yaxis()
    if masks:
        axes.legend(loc="lower right")
    save_figure(figure, path)
