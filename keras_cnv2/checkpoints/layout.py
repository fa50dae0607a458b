"""The order of the axes of an array in Keras and in another implementation."""

import math
import re
from typing import NamedTuple


class Layout(NamedTuple):
    """The axes of one array in Keras and in the dialect, one letter per axis: `Layout("hwio", "oihw")`.

    "1" is an axis of length one. Axes in parentheses are flattened into one axis in the dialect.
    """

    ours: str
    theirs: str

    @property
    def groups(self):
        """The letters of each axis in the dialect."""
        return [bracket or axis for bracket, axis in re.findall(r"\((\w+)\)|(\w)", self.theirs)]

    def _sizes(self, shape):
        return {axis: size for axis, size in zip(self.ours, shape) if axis != "1"}

    def _order(self):
        return [axis for axis in "".join(self.groups) if axis != "1"]

    def shape_there(self, shape):
        """The shape in the dialect of an array that has `shape` in Keras."""
        sizes = {**self._sizes(shape), "1": 1}
        return tuple(math.prod(sizes[axis] for axis in group) for group in self.groups)

    def shape_here(self, shape):
        """The shape in Keras of an array that has `shape` in the dialect.

        `None` if the rank is wrong, or if flattened axes leave the shape open.
        """
        if "(" in self.theirs or len(self.groups) != len(shape):
            return None
        sizes = {**dict(zip(self.groups, shape)), "1": 1}
        return tuple(sizes[axis] for axis in self.ours)

    def to_there(self, array):
        axes, order = [*self._sizes(array.shape)], self._order()
        flat = array.reshape([*self._sizes(array.shape).values()])
        return flat.transpose([axes.index(axis) for axis in order]).reshape(self.shape_there(array.shape))

    def to_here(self, array, shape):
        sizes, order = self._sizes(shape), self._order()
        array = array.reshape([sizes[axis] for axis in order])
        return array.transpose([order.index(axis) for axis in sizes]).reshape(shape)
