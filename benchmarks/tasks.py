"""The tasks of contestants: an architecture, a batch of images, and weights that make every layer affect the output."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Weights are written under all namings of `keras_cnv2.state_dict`; each rival reads the one that suits it.
NAMINGS = ("official", "timm", "transformers")


@dataclass(frozen=True)
class Task:
    """One case of a benchmark.

    Args:
        depths: Four ints, the number of blocks in each stage.
        dims: Four ints, the number of channels in each stage.
        batch: Int, the number of images in a call.
        image_size: Int, height and width of the images in pixels.
        stem_stride: Int, the stride of the stem in pixels.
        classes: Int, the number of classes.
        weights: Optional path of a folder with weights from `weights_writer`; `None` keeps the initial values.
    """

    depths: tuple[int, ...]
    dims: tuple[int, ...]
    batch: int
    image_size: int = 224
    stem_stride: int = 4
    classes: int = 1000
    weights: str | None = None

    @classmethod
    def of(cls, size, batch, image_size=224):
        """Returns the task of a published size."""
        from keras_cnv2.sizes import get_size

        row = get_size(size)
        return cls(row.depths, row.dims, batch, image_size)

    def images(self):
        """Returns random float32 images `(N, H, W, 3)` with the statistics of normalised images."""
        return np.random.default_rng(0).standard_normal((self.batch, self.image_size, self.image_size, 3), "float32")

    def labels(self):
        return np.random.default_rng(1).integers(0, self.classes, self.batch)

    def state_dict(self, naming):
        """Returns the weights under one of `NAMINGS`: {name: array}."""
        with np.load(Path(self.weights, f"{naming}.npz")) as arrays:
            return dict(arrays)


def products(task):
    """Returns the matrix products of a forward pass, i.e. everything except the depthwise convolutions, in order.

    Returns:
        List of (rows, columns in, columns out).
    """
    side = task.image_size // task.stem_stride
    shapes = [(task.batch * side**2, 3 * task.stem_stride**2, task.dims[0])]
    for stage, (depth, dim) in enumerate(zip(task.depths, task.dims)):
        if stage:
            side //= 2
            shapes.append((task.batch * side**2, 4 * task.dims[stage - 1], dim))
        shapes += [(task.batch * side**2, dim, 4 * dim), (task.batch * side**2, 4 * dim, dim)] * depth
    return [*shapes, (task.batch, task.dims[-1], task.classes)]


def multiply_accumulates(task):
    """Returns the number of multiply-accumulates in a forward pass: matrix products and depthwise convolutions."""
    positions = [task.batch * (task.image_size // task.stem_stride // 2**stage) ** 2 for stage in range(4)]
    depthwise = sum(49 * depth * dim * n for depth, dim, n in zip(task.depths, task.dims, positions))
    return sum(math.prod(shape) for shape in products(task)) + depthwise


def weights_writer(task):
    """A contestant whose call writes random weights, under every naming, into the task's folder.

    Initial values are not suitable: GRN starts as the identity, and logits would be so small that all were equal.
    """
    import keras_cnv2

    model = keras_cnv2.ConvNeXtV2(task.depths, task.dims, classes=task.classes, stem_stride=task.stem_stride)

    def write():
        rng = np.random.default_rng(2)
        values = {name: _value(name, value.shape, rng) for name, value in keras_cnv2.state_dict(model).items()}
        keras_cnv2.load_checkpoint(model, values)
        for naming in NAMINGS:
            np.savez(Path(task.weights, f"{naming}.npz"), **keras_cnv2.state_dict(model, naming))

    return write


def _value(name, shape, rng):
    noise = rng.standard_normal(shape, "float32")
    if name.endswith("weight") and len(shape) > 1:
        return noise / np.sqrt(np.prod(shape[1:]), dtype="float32")
    return 0.1 * noise + name.endswith(("weight", "gamma"))
