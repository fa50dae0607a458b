"""Training commands and their runs: everything that the commands share. Each command is a subclass of `TrainingRun`."""

import contextlib
import dataclasses
import logging
from pathlib import Path

from keras_cnv2.checkpoints import load
from keras_cnv2.terminal import printable

from ..data.images.sources import open_source
from ..distribute.devices import ONE_DEVICE
from ..files import write_json
from ..loop import state
from ..loop.train import train
from ..runs import results
from ..runs.folder import open_run
from ..runs.lock import releasing
from ..runs.machine import versions
from ..runs.names import BEST, METRICS
from .options import add_options, chosen_recipe
from .reproducible import make_reproducible
from .run_options import Outcome, add_device_options, add_run_options, devices_of, folder_of
from .scaling import like_weights
from .weights import weights_of

logger = logging.getLogger(__name__)


class TrainingRun:
    """A run of a training command. A subclass is a command: it defines the attributes and methods that differ.

    A run opens its data and folder, builds a model, trains and saves it, evaluates it, and writes the other results.

    Args:
        recipe: A recipe of the class of `rows`.
        folder: Path of the run's folder.
        devices: `training.distribute.devices.Devices`.

    Class attributes:
        name: Name of the command, and the default name of its runs.
        rows: Dict from names to recipes.
        default: Name of the default recipe.
        model_file: Name of the file with the trained model.
        labelled: Whether the images need labels; for `open_data` of this class.
        monitor: Name of the validation metric that selects the best epoch; `None` for a run without validation.
        curves: Metrics that learning_curves.png shows.
        first, last: Metrics whose values in the first epoch, and in the last one, are in metrics.json.
        scored: Key of metrics.json that a run with scores has.
        table: Function from the content of metrics.json to a text with the scores.

    Attributes:
        source: The data, a `training.data.source.Source`.
        model: The model that is trained.
        trained: The model that is saved and evaluated.
        scores: Dict with the scores of `trained`; empty if the data have no validation images.
    """

    labelled = True
    monitor = None
    curves = ("loss",)
    first = last = ()
    scored = table = None

    def __init__(self, recipe, folder, devices=ONE_DEVICE):
        self.recipe = recipe
        self.folder = Path(folder)
        self.devices = devices
        self.source = self.model = self.trained = None
        self.scores = {}

    @classmethod
    def add_arguments(cls, parser):
        add_run_options(parser, cls.name)
        add_device_options(parser)
        add_options(parser, cls.rows, cls.default)

    @classmethod
    def main(cls, args):
        cls.show(*cls.outcome(args))

    @classmethod
    def outcome(cls, args):
        """Runs the command. Returns the `Outcome`."""
        recipe, folder = chosen_recipe(args, cls.rows), folder_of(args)
        return Outcome(folder, cls.run(recipe, folder, devices_of(args), change=args.change_recipe))

    @classmethod
    def run(cls, recipe, folder, devices=ONE_DEVICE, finish=None, change=False):
        """Trains to the end of a recipe, resuming an interrupted run of it in the folder.

        Writes the trained model (with `recipe.ema` the averaged weights), best.keras after each epoch that is the best
        so far, learning_curves.png, metrics.json, the logs and the checkpoints; and the files that the command's own
        docstring names.

        Args:
            recipe, folder, devices: See the class.
            finish: "newest" or "best" to end the run with this checkpoint, without a further step.
            change: Whether a run may resume with another recipe, see `training.runs.folder.open_run`.

        Returns:
            The content of metrics.json, a dict; `None` on all workers except the chief.

        Raises:
            TrainingError: If training fails, or another worker fails or has another recipe, other data or packages.
            ValueError or OSError: If recipe, data, weights or folder are invalid.
        """
        with releasing(folder), devices.clear_errors():
            return cls(recipe, folder, devices).train(finish, change)

    def train(self, finish=None, change=False):
        """Runs all steps. Arguments and result as in `run`."""
        devices, folder = self.devices, self.folder
        weights = self.start(finish, change)
        with devices.scope(), replaced_weights(folder):
            self.model = self.new_model(weights)
        progress = train(
            self.model,
            self.recipe,
            self.source,
            folder,
            devices=devices,
            monitor=self.monitor,
            save_best=lambda: results.save(self.finished(self.model), folder / BEST),
            finish=finish,
            **self.fit_arguments(),
        )
        with devices.scope():
            self.trained = self.finished(self.model)
        if devices.is_chief:
            results.save(self.trained, folder / self.model_file)  # before evaluation compiles the model
        if self.source.validation_size:
            self.scores = self.evaluate()
        return devices.on_chief(lambda: self.write(progress))

    def start(self, finish=None, change=False):
        """Opens the data, the weights and, on the chief, the folder. Succeeds on all workers or fails on all.

        Returns:
            Path or tag of the weights to start from; `None` if there are none, or if `finish` is given: a run that
            makes no further step needs none.
        """
        with self.devices.agreement() as facts:
            self.devices.check_batch_size(self.recipe.batch_size, self.recipe.accumulation)
            self.source = source = self.open_data()
            recipe = self.recipe
            weights = weights_of(recipe) if recipe.weights and not finish else None
            if not finish:
                self.prepare()
            found = {
                "images": source.size,
                "validation_images": source.validation_size,
                "classes": source.class_names and [*source.class_names],
                **source.taken,
            }
            if self.devices.is_chief:
                source.look(self.folder.parent)
                open_run(self.folder, recipe, found, change)
            facts.update(recipe=dataclasses.asdict(recipe), versions=versions(), **found)
        if not recipe.weights and recipe.layer_decay < 1:
            logger.warning(
                "training from scratch with layer_decay=%s, which almost stops the first layers: give --weights, or "
                "--layer-decay 1",
                recipe.layer_decay,
            )
        make_reproducible(recipe)
        return weights

    def write(self, progress):
        """Writes all results of a run except its trained model. Returns the content of metrics.json."""
        history = progress.history
        results.draw_curves(history, self.folder, self.curves)
        self.draw(progress)
        self.export()
        if self.scores:
            self.draw_scores()
            results.save_best(self.model, progress, self.folder, self.finished)
        metrics = results.last(history, *self.last) | results.summary(self.trained, progress) | self.scores
        metrics |= {f"first_{name}": row[name] for row in history[:1] for name in self.first}
        write_json(self.folder / METRICS, metrics)
        return metrics

    @classmethod
    def show(cls, folder, metrics):
        """Prints the results of a run; nothing for `None`."""
        if metrics:
            print(f"{cls.summary(metrics)}weights: {printable(folder / cls.model_file)}")

    # The steps that commands define.

    def open_data(self):
        """Returns the data source, here of images for `training.data.images`.

        Values of an .npz file are scaled as in the run of the weights, and `recipe` then says so.
        """
        self.recipe = like_weights(self.recipe)
        return open_source(self.recipe, labelled=self.labelled)

    def prepare(self):
        """Opens what training needs besides data and weights, before anything is written.

        It is not called for a run that makes no further step. It runs outside the scope of a strategy, where workers
        would wait for one that fails.
        """

    def new_model(self, weights):
        """Returns the model to train, from weights as returned by `start`."""
        raise NotImplementedError

    def fit_arguments(self):
        """Returns further keyword arguments of `training.loop.train.train`, such as the loss."""
        return {}

    def finished(self, model):
        """Returns the model that is saved instead of `model`."""
        return model

    def evaluate(self):
        """Returns the scores of `trained` on the validation images, on all workers."""
        return {}

    def export(self):
        """Exports the trained model for serving."""

    def draw(self, progress):
        """Draws figures that need no validation images, with the `training.loop.state.Progress` at the end."""

    def draw_scores(self):
        """Draws the scores, and examples of predictions."""

    @classmethod
    def summary(cls, metrics):
        """Returns the text that is printed before the path of the weights."""
        return f"{cls.table(metrics)}\n" if cls.scored in metrics else ""


@contextlib.contextmanager
def replaced_weights(folder):
    """A context without warnings about the weights that are loaded, if a checkpoint in a run's folder replaces them."""
    teller = logging.getLogger(load.__name__)
    level = teller.level
    if state.checkpoints(folder / "checkpoints"):
        teller.setLevel(logging.ERROR)
    try:
        yield
    finally:
        teller.setLevel(level)
