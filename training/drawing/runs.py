"""Figures of training runs, as PNG files."""

import itertools

import numpy as np

from .figures import drawable, new_figure, save_figure, shown

# Maximum number of bars in a readable chart.
MAX_BARS = 60


def few_bars(ordered, title):
    """Reduces many classes to the best and the worst ones, and extends the title accordingly.

    Args:
        ordered: List with one item for each bar, in order.
        title: String.

    Returns:
        The list and the title.
    """
    if len(ordered) <= MAX_BARS:
        return ordered, title
    half = MAX_BARS // 2
    return ordered[:half] + ordered[-half:], f"{title}, the {half} best and worst classes"


def learning_curves(path, panels):
    """Draws metrics by epoch.

    Args:
        path: Path of the PNG to write.
        panels: Dict from a panel's label to its curves, a dict from their names to one value per epoch.
    """
    figure = new_figure(5 * len(panels), 4)
    for axes, (label, curves) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items()):
        for name, values in curves.items():
            axes.plot(range(1, len(values) + 1), values, marker=".", label=name)
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    save_figure(figure, path)


def reconstructions(path, images, hidden, painted):
    """Draws a row for each image: original, visible patches, reconstruction.

    Args:
        path: Path of the PNG to write.
        images: Array `(N, H, W, channels)`, values in 0..255.
        hidden: Masks `(N, h, w)`, 1 = masked.
        painted: The reconstructions, of the shape of `images`.
    """
    scale = images.shape[1] // hidden.shape[1]
    covered = np.kron(hidden, np.ones((1, scale, scale)))[..., None] == 1
    columns = {"original": images, "visible": np.where(covered, 128, images), "reconstruction": painted}
    figure = new_figure(2 * len(columns), 2 * len(images))
    grid = figure.subplots(len(images), len(columns), squeeze=False)
    for column, (title, pictures) in enumerate(columns.items()):
        for row, picture in enumerate(pictures):
            axes = grid[row, column]
            axes.imshow(shown(picture))
            axes.set_axis_off()
            if row == 0:
                axes.set_title(title)
    save_figure(figure, path)


def predictions(path, rows):
    """Draws predictions with their images.

    Args:
        path: Path of the PNG to write.
        rows: Dict from a row's title to `training.evaluation.predictions.Prediction`s.
    """
    across = max(map(len, rows.values()))
    figure = new_figure(1.6 * across, 2.3 * len(rows))
    for part, (title, predictions) in zip(figure.subfigures(len(rows), 1, squeeze=False)[:, 0], rows.items()):
        part.suptitle(title)
        for axes, prediction in itertools.zip_longest(part.subplots(1, across, squeeze=False)[0], predictions):
            axes.set_axis_off()
            if prediction is None:
                continue
            axes.imshow(shown(prediction.image))
            right = prediction.predicted == prediction.label
            told = f"{drawable(prediction.predicted)} {prediction.probability:.0%}"
            axes.set_title(told if right else f"{told}\nnot {drawable(prediction.label)}", fontsize=8)
    save_figure(figure, path)


def confusion_matrix(path, matrix, class_names, title):
    """Draws a confusion matrix.

    Args:
        path: Path of the PNG to write.
        matrix: Array of counts, rows are labels, columns predictions.
        class_names: One string for each class.
        title: String.
    """
    from sklearn.metrics import ConfusionMatrixDisplay

    side = 3 + 0.4 * len(class_names)
    figure = new_figure(side, side)
    axes = figure.subplots()
    display = ConfusionMatrixDisplay(matrix, display_labels=[*map(drawable, class_names)])
    display.plot(
        ax=axes, colorbar=False, xticks_rotation="vertical" if len(max(class_names, key=len)) > 3 else "horizontal"
    )
    axes.set_title(title)
    save_figure(figure, path)
