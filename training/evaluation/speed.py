"""Progress and speed of an evaluation. Imports no TensorFlow."""

import time

from ..drawing.progress import progress_bar


class Speed:
    """A context that shows a progress bar and measures images per second, without the first step, which compiles.

    Args:
        images: Int, the number of all images.
        visible: Bool, whether to show the bar.
    """

    def __init__(self, images, visible=True):
        self.images = images
        self.visible = visible

    def __enter__(self):
        self._bar = progress_bar(desc="evaluating", total=self.images, leave=False, disable=not self.visible)
        self._done, self._ends = 0, []
        return self

    def step(self, images):
        """Counts a step with up to so many images, on all workers together. Call it at the end of the step."""
        advance = min(images, self.images - self._done)
        self._done += advance
        self._ends = [*self._ends[:1], time.perf_counter()]
        self._bar.update(advance)

    def __exit__(self, *_):
        if len(self._ends) > 1:
            self._ends[1] = time.perf_counter()  # on some devices, steps are computed after they were begun
        self._bar.close()

    def rate(self, images, first):
        """Returns the speed, rounded; `None` for a single step.

        Args:
            images: Int, the number of images that were evaluated.
            first: Int, how many of them were in the first step.
        """
        if len(self._ends) < 2 or images <= first:
            return None
        start, end = self._ends
        return round((images - first) / (end - start), 1)
