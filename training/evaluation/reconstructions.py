"""Draws what a model in pre-training reconstructs. Imports no TensorFlow."""

import shutil

import keras

from keras_cnv2.fcmae import masking
from keras_cnv2.files import replacing

from ..drawing.runs import reconstructions


class Reconstruct(keras.callbacks.Callback):
    """Reconstructs the same images with the same masks after epochs 1, 2, 4, 8, ... and after the last epoch.

    Writes reconstructions.png, and a copy of each version as reconstructions/epoch-NNNN.png.

    Args:
        images: Array `(N, H, W, channels)`.
        folder: The run's folder.
        recipe: The run's recipe.
    """

    def __init__(self, images, folder, recipe):
        super().__init__()
        self.images = images
        self.folder = folder
        self.recipe = recipe

    def on_epoch_end(self, epoch, logs=None):
        done = epoch + 1
        if done & (done - 1) == 0 or done == self.recipe.epochs:
            self._paint(done)

    def catch_up(self, model, progress):
        """Draws the last reconstructions if they are missing: the run was killed before drawing, or ends early."""
        self.set_model(model)
        done = progress.history[-1]["epoch"] if progress.history else 0
        if done < self.recipe.epochs:  # ends early, possibly within an epoch
            self._paint_latest()
        elif not self._path(done).exists():
            self._paint(done)

    def _path(self, done):
        return self.folder / "reconstructions" / f"epoch-{done:04d}.png"

    def _paint(self, done):
        path = self._path(done)
        path.parent.mkdir(exist_ok=True)
        latest = self._paint_latest()
        with replacing(path) as temporary:  # written last: if it exists, reconstructions.png is of the same epoch
            shutil.copyfile(latest, temporary)

    def _paint_latest(self):
        visible, count = self.model.visible, len(self.images)
        hidden = masking.random_hidden(count, *self.model.grid, visible, seed=self.recipe.seed)
        hidden = keras.ops.convert_to_numpy(hidden)
        painted = self.model.reconstruct(self.images, hidden=hidden)
        latest = self.folder / "reconstructions.png"
        reconstructions(latest, self.images, hidden, painted)
        return latest
