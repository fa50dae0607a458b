"""What people would rather look at than read, as PNG files."""

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay


def learning_curves(path, losses, accuracies):
    """The loss of pre-training and the accuracy of fine-tuning, by epoch."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = [("FCMAE pre-training", "loss", losses), ("fine-tuning", "training accuracy", accuracies)]
    for axes, (title, label, values) in zip(figure.subplots(1, 2), panels):
        axes.plot(range(1, len(values) + 1), values, marker=".")
        axes.set(title=title, xlabel="epoch", ylabel=label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def reconstructions(path, images, hidden, painted):
    """A row a picture: original, what the encoder sees, reconstruction.

    Args:
        path: Where the PNG goes.
        images: Array `(N, H, W, channels)`, values in 0..255.
        hidden: Masks `(N, h, w)`, 1 = hidden.
        painted: The reconstructions, of the shape of `images`.
    """
    scale = images.shape[1] // hidden.shape[1]
    covered = np.kron(hidden, np.ones((1, scale, scale)))[..., None] == 1
    columns = {"original": images, "visible": np.where(covered, 128, images), "reconstruction": painted}
    figure = Figure(figsize=(2 * len(columns), 2 * len(images)), layout="constrained")
    grid = figure.subplots(len(images), len(columns), squeeze=False)
    for column, (title, pictures) in enumerate(columns.items()):
        for row, picture in enumerate(pictures):
            axes = grid[row, column]
            axes.imshow(np.uint8(picture).squeeze(), cmap="gray", vmin=0, vmax=255)
            axes.set_axis_off()
            if row == 0:
                axes.set_title(title)
    figure.savefig(path, dpi=120)


def confusion_matrix(path, labels, predictions, class_names, title):
    """How often each class is taken for which."""
    figure = Figure(figsize=(7, 7), layout="constrained")
    axes = figure.subplots()
    ConfusionMatrixDisplay.from_predictions(
        labels, predictions, labels=range(len(class_names)), display_labels=class_names, ax=axes, colorbar=False
    )
    axes.set_title(title)
    figure.savefig(path, dpi=120)
