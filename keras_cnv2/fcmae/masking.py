"""Patches and masks: pure functions. A mask is called `hidden`; it is 1 where masked and 0 where visible."""

from keras import ops

from keras_cnv2.distribute import replicas


def count_visible(patches, mask_ratio):
    """Returns the number of visible patches in every image, rounded down as in the official code."""
    return int(patches * (1 - mask_ratio))


def random_hidden(batch_size, height, width, visible, seed):
    """Draws masks `(batch_size, height, width)` in float32, with exactly `visible` visible patches in each image.

    Source: ConvNeXt V2 (arXiv 2301.00808), section 3.1, "Masking".
    """
    noise = replicas.uniform((batch_size, height * width), seed)
    ranks = ops.argsort(ops.argsort(noise, axis=1), axis=1)
    return ops.cast(ops.reshape(ranks >= visible, (-1, height, width)), "float32")


def enlarge(hidden, factor):
    """Repeats the positions of a mask: `(N, h, w)` to `(N, h * factor, w * factor)`."""
    return ops.repeat(ops.repeat(hidden, factor, axis=1), factor, axis=2)


def to_patches(images, patch):
    """Cuts images `(N, h * patch, w * patch, C)` into patches `(N, h * w, patch * patch * C)`.

    The values of a patch are ordered (row, column, channel).
    """
    _, height, width, channels = images.shape
    h, w = height // patch, width // patch
    x = ops.reshape(images, (-1, h, patch, w, patch, channels))
    return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, h * w, patch * patch * channels))


def from_patches(patches, height, width, patch):
    """The inverse of `to_patches`, for images of `height` x `width` pixels."""
    h, w = height // patch, width // patch
    x = ops.reshape(patches, (-1, h, w, patch, patch, patches.shape[-1] // patch**2))
    return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, height, width, x.shape[-1]))


def patch_statistics(patches):
    """Returns mean and standard deviation of each patch `(N, L, D)`, as two tensors `(N, L, 1)`.

    The variance has the divisor `D - 1`, and 1e-6 is added to it before the square root.

    Source: Masked Autoencoders (arXiv 2111.06377), section 3, "Reconstruction target".
    """
    mean = ops.mean(patches, axis=-1, keepdims=True)
    variance = ops.sum(ops.square(patches - mean), axis=-1, keepdims=True) / (patches.shape[-1] - 1)
    return mean, ops.sqrt(variance + 1e-6)


class VisiblePatches:
    """Moves the visible patches of feature maps out of the grid and back.

    Every image has the same number of visible patches, so the visible part has a static shape. A patch with a side of
    `p` positions occupies `p` rows of `p * C` contiguous numbers in the grid. Moving whole rows takes a single pass.

    Args:
        hidden: Mask, a tensor `(N, h, w)` with `visible` zeros in each image.
        visible: Int, the number of visible patches V.
    """

    def __init__(self, hidden, visible):
        _, self.h, self.w = hidden.shape
        self.visible = visible
        patches = self.h * self.w
        order = ops.reshape(ops.cast(hidden, "int32"), (-1, patches)) * patches + ops.arange(patches, dtype="int32")
        self.patches = ops.cast(ops.argsort(order, axis=1)[:, :visible], "int32")  # (N, V), ascending
        self.batch_size = ops.shape(self.patches)[0]

    def _rows(self, p):
        """The indices of the visible rows among all rows of the grid, `(N * V * p,)`, for patches of side `p`."""
        image = ops.reshape(ops.arange(self.batch_size, dtype="int32"), (-1, 1, 1))
        row, column = self.patches // self.w, self.patches % self.w  # row and column of the patch, in patches
        row_in_grid = (image * self.h + row[..., None]) * p + ops.arange(p, dtype="int32")  # (N, V, p)
        return ops.reshape(row_in_grid * self.w + column[..., None], (-1,))

    def gather(self, grid):
        """`(N, h * p, w * p, C)` to `(N * V, p, p, C)`: the visible patches, as small images."""
        p, channels = grid.shape[2] // self.w, grid.shape[3]
        rows = ops.reshape(grid, (-1, p * channels))
        return ops.reshape(ops.take(rows, self._rows(p), axis=0), (-1, p, p, channels))

    def scatter(self, patches):
        """`(N * V, p, p, C)` to `(N, h * p, w * p, C)`, zero where masked: the inverse of `gather`."""
        _, p, _, channels = patches.shape
        rows = ops.reshape(patches, (-1, p * channels))
        shape = (self.batch_size * self.h * p * self.w, p * channels)
        grid = ops.scatter(self._rows(p)[:, None], rows, shape)
        return ops.reshape(grid, (-1, self.h * p, self.w * p, channels))

    def surround(self, patches, reach):
        """`(N * V, p, p, C)` to `(N * V, p + 2 * reach, p + 2 * reach, C)`: patches with a border from the grid.

        The border is zero where the grid is masked, and outside of the grid. `reach` is at most `p`.
        """
        _, p, _, channels = patches.shape
        offset = ops.arange(-reach, p + reach, dtype="int32")
        patch, within = offset // p + 1, offset % p  # which of three neighbours, and the position in it
        neighbours = ops.take(ops.take(self._neighbours(), patch, axis=1), patch, axis=2)
        positions = (neighbours * p + within[:, None]) * p + within
        # A patch of zeros is appended, which stands for masked patches and those outside of the grid.
        padded = ops.reshape(ops.pad(patches, [[0, 1], [0, 0], [0, 0], [0, 0]]), (-1, channels))
        x = ops.take(padded, ops.reshape(positions, (-1,)), axis=0)
        return ops.reshape(x, (-1, p + 2 * reach, p + 2 * reach, channels))

    def _neighbours(self):
        """The indices of each visible patch and the eight around it, `(N * V, 3, 3)`; `N * V` if not visible."""
        row, column = self.patches // self.w, self.patches % self.w
        image = ops.arange(self.batch_size, dtype="int32")[:, None]
        height, width = self.h + 2, self.w + 2  # with a frame of empty cells, so that every patch has eight neighbours
        cells = ops.reshape((image * height + row + 1) * width + column + 1, (-1,))
        count = self.batch_size * self.visible
        numbers = ops.arange(count, dtype="int32") - count
        grid = ops.scatter(cells[:, None], numbers, (self.batch_size * height * width,)) + count
        around = ops.arange(-1, 2, dtype="int32")
        return ops.take(grid, cells[:, None, None] + around[:, None] * width + around, axis=0)
