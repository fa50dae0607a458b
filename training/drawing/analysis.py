"""Figures of a model's analysis, as PNG files."""

import re

import numpy as np
from PIL import Image

from .figures import drawable, new_figure, save_figure, shown

# Number of channels shown for each block, as in the paper.
CHANNELS = 64


def blocks_of(models):
    """Returns the names of all blocks of some models, sorted by stage, then by number.

    Args:
        models: Dict from a model's name to a dict whose keys are its blocks' names.
    """
    names = {block for values in models.values() for block in values}
    return sorted(names, key=lambda name: [*map(int, re.findall(r"\d+", name))])


def distances(path, curves):
    """Draws the feature cosine distance by block.

    Args:
        path: Path of the PNG to write.
        curves: Dict from a model's name to a dict from its blocks' names to distances.
    """
    figure = new_figure(7, 4)
    axes = figure.subplots()
    blocks = blocks_of(curves)
    for name, values in curves.items():
        axes.plot([*map(blocks.index, values)], [*values.values()], marker=".", label=drawable(name))
    axes.set_xticks(range(len(blocks)), blocks)
    axes.set(xlabel="block", ylabel="mean cosine distance of channels", ylim=(0, 0.55))
    axes.tick_params("x", rotation=90, labelsize=8)
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, path)


def selectivity(path, indices):
    """Draws histograms of the class selectivity index, one panel for each block.

    Args:
        path: Path of the PNG to write.
        indices: Dict from a model's name to a dict from its blocks' names to arrays of indices.
    """
    blocks = blocks_of(indices)
    across = min(4, len(blocks))
    down = -(-len(blocks) // across)
    bins = np.linspace(0, 1, 26)
    figure = new_figure(3 * across, 2.2 * down)
    for axes, block in zip(figure.subplots(down, across, squeeze=False, sharex=True).flat, blocks):
        for name, values in indices.items():
            if block in values:
                axes.hist(values[block], bins=bins, density=True, histtype="step", label=drawable(name))
        axes.set_title(block, fontsize=9)
        axes.set_yticks([])
    for axes in figure.axes[len(blocks) :]:
        axes.set_axis_off()
    figure.axes[0].legend(fontsize=8)
    figure.supxlabel("class selectivity index")
    save_figure(figure, path)


def activations(path, image, maps):
    """Draws channels of some blocks for an image, each scaled from its minimum to its maximum.

    Args:
        path: Path of the PNG to write.
        image: Array `(H, W, channels)` in 0..255.
        maps: Dict from a model's name to a dict from blocks' names to arrays `(h, w, C)`.
    """
    blocks = blocks_of(maps)
    figure = new_figure(2.4 * (1 + len(blocks)), 2.6 * len(maps))
    grid = figure.subplots(len(maps), 1 + len(blocks), squeeze=False)
    for row, (name, values) in zip(grid, maps.items()):
        row[0].imshow(shown(image))
        row[0].set_title(drawable(name), fontsize=9)
        for axes, block in zip(row[1:], blocks):
            axes.set_title(block, fontsize=9)
            if block in values:
                axes.imshow(mosaic(values[block]), cmap="viridis")
        for axes in row:
            axes.set_axis_off()
    save_figure(figure, path)


def mosaic(channels, count=CHANNELS):
    """Arranges evenly spaced channels of an array `(h, w, C)` in a square grid with gaps, each scaled to 0..1."""
    height, width, total = channels.shape
    count = min(count, total)
    side = int(np.ceil(np.sqrt(count)))
    tiles = np.full((side, side, height + 1, width + 1), np.nan)
    for place, channel in enumerate(np.linspace(0, total - 1, count).astype(int)):
        values = channels[..., channel]
        spread = np.ptp(values)
        tiles[place // side, place % side, :-1, :-1] = (values - values.min()) / spread if spread else 0
    return tiles.transpose(0, 2, 1, 3).reshape(side * (height + 1), side * (width + 1))[:-1, :-1]


def grad_cams(path, images, maps, told):
    """Draws images with Grad-CAM maps of each model's prediction.

    Args:
        path: Path of the PNG to write.
        images: Array `(N, H, W, channels)` in 0..255.
        maps: Dict from a model's name to maps `(N, h, w)` in 0..1.
        told: Dict from a model's name to N strings, the predictions as text.
    """
    figure = new_figure(2 * len(images), 2.2 * (1 + len(maps)))
    grid = figure.subplots(1 + len(maps), len(images), squeeze=False)
    for column, image in enumerate(images):
        grid[0, column].imshow(shown(image))
        for row, name in enumerate(maps, start=1):
            grid[row, column].imshow(shown(image))
            grid[row, column].imshow(_enlarged(maps[name][column], image.shape[:2]), cmap="jet", alpha=0.45)
            grid[row, column].set_title(drawable(told[name][column]), fontsize=8)
    for row, name in enumerate(maps, start=1):
        axes = grid[row, 0]
        axes.text(-0.06, 0.5, drawable(name), rotation=90, va="center", ha="right", transform=axes.transAxes)
    for axes in grid.flat:
        axes.set_axis_off()
    save_figure(figure, path)


def _enlarged(values, size):
    return np.asarray(Image.fromarray(values.astype("float32")).resize(size[::-1], Image.Resampling.BILINEAR))
