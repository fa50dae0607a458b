"""Pre-train an encoder with FCMAE on images without labels."""

import shutil

import keras

from keras_cnv2.checkpoints.source import fetch_weights, load_weights
from keras_cnv2.fcmae import masking
from keras_cnv2.files import replacing
from keras_cnv2.terminal import printable

from ..distribute.devices import ONE_DEVICE
from ..drawing.runs import reconstructions
from ..files import write_json
from ..loop.train import train
from ..models.build import new_fcmae, without_grn
from ..recipes.images import PRETRAINING
from ..runs import results
from ..runs.folder import METRICS
from . import options
from .start import add_device_options, add_run_options, outcome_of, start_run

MODEL = "fcmae.keras"
EXAMPLES = 6


def add_arguments(parser):
    add_run_options(parser, "pretrain")
    add_device_options(parser)
    options.add_options(parser, PRETRAINING, "images")


def outcome(args):
    """Runs the command. Returns the `Outcome`."""
    return outcome_of(run, PRETRAINING, args)


def main(args):
    show(*outcome(args))


def show(folder, metrics):
    """Prints the results of a run."""
    if metrics:
        losses = f"loss {metrics['first_loss']:.4f} -> {metrics['loss']:.4f}, " if "loss" in metrics else ""
        print(f"{losses}weights: {printable(folder / MODEL)}")


def run(recipe, folder, devices=ONE_DEVICE, finish=None, change=False):
    """Pre-trains to the end of a recipe, resuming an interrupted run of it in the folder.

    Writes fcmae.keras, reconstructions.png, learning_curves.png, metrics.json, the logs and the checkpoints.

    Args:
        recipe: `training.recipes.fields.Pretraining`.
        folder: Path of the run's folder.
        devices: `training.distribute.devices.Devices`.
        finish: "newest" or "best" to end the run with this checkpoint, without a further step.
        change: Whether a run may resume with another recipe, see `training.runs.folder.open_run`.

    Returns:
        The content of metrics.json, a dict; `None` on all workers except the chief.
    """
    source, weights = start_run(recipe, folder, devices, finish=finish, change=change, labelled=False)
    with devices.scope():
        fcmae = new_fcmae(recipe, source.channels)
    if weights:
        load_weights(fcmae, fetch_weights(weights, recipe.model))
    if not recipe.grn:
        without_grn(fcmae)
    reconstruct = [Reconstruct(source.examples(recipe, EXAMPLES), folder, recipe)] if devices.is_chief else []
    progress = train(fcmae, recipe, source, folder, callbacks=reconstruct, devices=devices, finish=finish)
    return devices.on_chief(lambda: _written(fcmae, progress, folder, *reconstruct))


def _written(fcmae, progress, folder, reconstruct):
    """Writes all results of a run. Returns the content of metrics.json."""
    reconstruct.catch_up(fcmae, progress)
    results.save(fcmae, folder / MODEL)
    results.draw_curves(progress.history, folder, ("loss",))
    metrics = results.last(progress.history, "loss") | results.summary(fcmae, progress)
    if progress.history:
        metrics["first_loss"] = progress.history[0]["loss"]
    write_json(folder / METRICS, metrics)
    return metrics


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
