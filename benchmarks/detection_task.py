"""The parts of Mask R-CNN as tasks of contestants: given features, and weights for every layer. NumPy only."""

from dataclasses import dataclass

import numpy as np

WIDTH, UNITS, CLASSES = 256, 1024, 80
PROPOSALS, MASKS = 1000, 100
STRIDES = (4, 8, 16, 32)


@dataclass(frozen=True)
class DetectionTask:
    """A part of Mask R-CNN on one batch.

    Args:
        size: Name of the encoder's published size.
        dims: Four ints, the channels of the encoder's levels.
        batch: Int, the number of images.
        image_size: Int, height and width of the images in pixels.
    """

    size: str
    dims: tuple[int, ...]
    batch: int = 1
    image_size: int = 512

    @classmethod
    def of(cls, size, batch, image_size):
        """Returns the task of a published size."""
        from keras_cnv2.sizes import get_size  # which processes with torchvision cannot import

        return cls(size, get_size(size).dims, batch, image_size)

    def images(self):
        """Returns random float32 images `(N, H, W, 3)` in 0..255."""
        shape = (self.batch, self.image_size, self.image_size, 3)
        return np.random.default_rng(0).integers(0, 256, shape).astype("float32")

    def labels(self, count=8):
        """Returns the labels of `count` objects in each image, whose masks are rectangles within their boxes."""
        rng = np.random.default_rng(1)
        corners = rng.uniform(0, 0.6, (self.batch, count, 2))
        boxes = self.image_size * np.concatenate([corners, corners + rng.uniform(0.05, 0.4, corners.shape)], axis=-1)
        left, top, right, bottom = np.moveaxis(boxes, -1, 0)[..., None, None]
        y, x = np.mgrid[: self.image_size, : self.image_size] + 0.5
        masks = (x > left) & (x < right) & (y > top) & (y < bottom)
        classes = rng.integers(0, CLASSES, (self.batch, count))
        return {"boxes": boxes.astype("float32"), "classes": classes, "masks": masks.astype("uint8")}

    def features(self, part):
        """Returns the inputs of a part: float32 arrays, the channels last.

        Args:
            part: "pyramid": the encoder's four levels; "box_head" or "mask_head": the features of boxes.
        """
        rng = np.random.default_rng(2)
        if part == "pyramid":
            sides = [self.image_size // stride for stride in STRIDES]
            return [
                rng.standard_normal((self.batch, side, side, dim), "float32") for side, dim in zip(sides, self.dims)
            ]
        number, side = {"box_head": (PROPOSALS, 7), "mask_head": (MASKS, 14)}[part]
        return [rng.standard_normal((self.batch * number, side, side, WIDTH), "float32")]


def weights(name, shape):
    """Returns kernel and bias of a layer, drawn by its name, in Keras's layout."""
    rng = np.random.default_rng([*name.encode()])
    kernel = rng.standard_normal(shape, "float32") / np.sqrt(np.prod(shape[:-1]), dtype="float32")
    return kernel, 0.1 * rng.standard_normal(shape[-1], "float32")
