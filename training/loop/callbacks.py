"""Keras callbacks that log, guard and save a run. Imports no TensorFlow."""

import contextlib
import csv
import importlib.util
import io
import math
import time

import keras

from ..drawing.progress import progress_bar
from ..errors import TrainingError
from ..files import write_json, write_text
from . import state


class Position(keras.callbacks.Callback):
    """Counts the steps of a run, and shortens the first epoch of a run that resumes in the middle of one.

    Keras counts steps within an epoch, and every `fit` begins with a whole epoch. A run that resumes in mid-epoch has
    fewer steps left in its first epoch. This callback sets `stop_training` to end that epoch on time, and clears it
    before Keras would end the training.

    Args:
        step: Number of steps done before.
        steps_per_epoch: Number of steps in a whole epoch.
    """

    def __init__(self, step, steps_per_epoch):
        super().__init__()
        self.step = step
        self.steps_per_epoch = steps_per_epoch
        self._in_part_of_an_epoch = step % steps_per_epoch > 0

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if self._in_part_of_an_epoch and self.step % self.steps_per_epoch == 0:
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        if self._in_part_of_an_epoch:
            self.model.stop_training = self._in_part_of_an_epoch = False


class StopIfNotFinite(keras.callbacks.Callback):
    """Ends the run at the first step whose loss is not finite.

    The loss of a step is read only when the next step is under way, so that the device never waits for it.

    Args:
        position: The run's `Position`.
        folder: The run's checkpoint folder; `None` on workers that write no checkpoints.

    Raises:
        TrainingError: Raised from `fit`. The message names the step and the last checkpoint.
    """

    def __init__(self, position, folder):
        super().__init__()
        self.position = position
        self.folder = folder
        self._last = None

    def on_train_batch_end(self, batch, logs=None):
        self.check()
        self._last = (self.position.step, logs["loss"])

    def on_epoch_end(self, epoch, logs=None):
        self.check()

    def check(self):
        """Checks the loss of the last step. Call this before saving."""
        if self._last is None:
            return
        (step, loss), self._last = self._last, None
        if math.isfinite(loss := float(loss)):
            return
        found = state.checkpoints(self.folder) if self.folder else {}
        last = found[max(found)] if found else "the chief's" if not self.folder else "none"
        raise TrainingError(
            f"The loss was {loss} at step {step}. The last good checkpoint is {last}. Begin another run with a lower "
            "learning rate, a longer warm-up, clip_norm or another dtype."
        )


@contextlib.contextmanager
def averaged(model):
    """A context in which the model has the moving averages of its weights, if its optimizer keeps them.

    Keras's SwapEMAWeights swaps by adding and subtracting, which leaves rounding errors in the weights that are
    trained further.
    """
    if not getattr(model.optimizer, "inner_optimizer", model.optimizer).use_ema:
        yield
        return
    weights = [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]
    model.optimizer.finalize_variable_values(model.trainable_variables)
    for variable in model.trainable_variables:
        # On JAX the variable now shares its buffer with the average, and evaluation would donate that buffer.
        variable.assign(keras.ops.copy(keras.ops.convert_to_tensor(variable)))
    try:
        yield
    finally:
        for variable, weight in zip(model.trainable_variables, weights):
            variable.assign(weight)


class EvaluateAverages(keras.callbacks.Callback):
    """Replaces the weights by their moving averages while the model is evaluated."""

    def on_test_begin(self, logs=None):
        self._averaged = averaged(self.model)
        self._averaged.__enter__()

    def on_test_end(self, logs=None):
        self._averaged.__exit__(None, None, None)


class Log(keras.callbacks.Callback):
    """Writes one row per epoch into log.csv and log.json, and keeps the rows as `history`. Rewrites both files whole.

    When a run resumes within an epoch, Keras starts that epoch's metrics anew: its training metrics and seconds cover
    only the steps since then.

    Args:
        folder: The run's folder; `None` to write nothing.
        position: The run's `Position`.
        images: Number of images in a step.
        history: Rows of the epochs done before.
    """

    def __init__(self, folder, position, images, history=()):
        super().__init__()
        self.folder = folder
        self.position = position
        self.images = images
        self.history = list(history)

    def on_epoch_begin(self, epoch, logs=None):
        self._start, self._first_step = time.perf_counter(), self.position.step
        self._seconds = 0.0

    def on_train_batch_end(self, batch, logs=None):
        self._seconds = time.perf_counter() - self._start  # excludes validation

    def on_epoch_end(self, epoch, logs=None):
        steps = self.position.step - self._first_step
        row = {"epoch": epoch + 1, "step": self.position.step} | {name: float(value) for name, value in logs.items()}
        row["learning_rate"] = float(self.model.optimizer.learning_rate)
        row["images_per_second"] = round(steps * self.images / max(self._seconds, 1e-9), 1)
        row["seconds"] = round(time.perf_counter() - self._start, 1)
        self.history.append(row)
        if self.folder is None:
            return
        write_json(self.folder / "log.json", self.history)
        write_text(self.folder / "log.csv", _csv(self.history))


def _csv(rows):
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


class SaveCheckpoints(keras.callbacks.Callback):
    """Saves the state at the end of each epoch and every `every` steps within one, and the best model so far.

    Args:
        folder: The checkpoint folder; `None` to save nothing.
        position: The run's `Position`.
        log: The run's `Log`, which must come before this callback.
        guard: The run's `StopIfNotFinite`.
        every: Number of steps between checkpoints within an epoch.
        monitor: Name of the metric that selects the best checkpoint. Names that end in "accuracy" or "iou" are
            maximised, all others minimised.
        best: Step of the best checkpoint so far, or `None`.
        save_best: Optional function without arguments that writes the model. It is called after each epoch that is
            the best so far, while the model has the weights that were evaluated.
        described: As in `training.loop.state.save`.
    """

    def __init__(self, folder, position, log, guard, every, monitor, best=None, save_best=None, described=None):
        super().__init__()
        self.folder = folder
        self.position = position
        self.log = log
        self.guard = guard
        self.every = every
        self.monitor = monitor
        self.best = best
        self.save_best = save_best
        self.described = described

    def on_train_batch_end(self, batch, logs=None):
        step = self.position.step
        if step % self.every == 0 and step % self.position.steps_per_epoch:
            self.save()

    def on_epoch_end(self, epoch, logs=None):
        sign = -1 if self.monitor.endswith(("accuracy", "iou")) else 1
        values = {row["step"]: sign * row[self.monitor] for row in self.log.history}
        self.best = min(values, key=lambda step: (math.isnan(values[step]), values[step]))
        self.save()
        if self.folder and self.save_best and self.best == self.position.step:
            with averaged(self.model):
                self.save_best()

    def save(self):
        """Saves the current state, between two steps."""
        self.guard.check()
        if self.folder is None:
            return
        if hasattr(self.model, "jax_state_sync"):  # JAX trains on copies of the variables
            self.model.jax_state_sync()
        position = self.position
        progress = state.Progress(position.step, tuple(self.log.history), self.best, position.steps_per_epoch)
        state.save(self.folder, self.model, progress, self.described)


class ProgressLine(keras.callbacks.Callback):
    """Shows one progress line for the whole run: epoch, metrics, images per second, time left.

    Args:
        position: The run's `Position`.
        images: Number of images in a step.
        epochs: Number of epochs of the run.
    """

    def __init__(self, position, images, epochs):
        super().__init__()
        self.position = position
        self.images = images
        self.epochs = epochs
        self._bar = None

    def on_train_begin(self, logs=None):
        total = self.epochs * self.position.steps_per_epoch * self.images
        done = self.position.step * self.images
        self._bar = progress_bar(total=total, initial=done, unit_scale=True)

    def on_epoch_begin(self, epoch, logs=None):
        self._bar.set_description(f"epoch {epoch + 1}/{self.epochs}", refresh=False)

    def on_train_batch_end(self, batch, logs=None):
        if self._bar.update(self.images):  # true when the bar is redrawn: wait for the device only then
            self._set(logs)

    def on_epoch_end(self, epoch, logs=None):
        self._set(logs)
        self._bar.refresh()

    def on_train_end(self, logs=None):
        self.close()

    def close(self):
        """Ends the line, also after an error, so that the next output begins a new line."""
        if self._bar is not None:
            self._bar.close()

    def _set(self, logs):
        self._bar.set_postfix({name: f"{float(value):.4g}" for name, value in logs.items()}, refresh=False)


def tensorboard(folder):
    """Returns a list with the TensorBoard callback if TensorBoard and TensorFlow are installed, else an empty list."""
    if not all(map(importlib.util.find_spec, ("tensorflow", "tensorboard"))):
        return []
    return [keras.callbacks.TensorBoard(str(folder / "tensorboard"), write_graph=False)]
