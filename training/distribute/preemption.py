"""Ending when the machine is wanted back: a SIGTERM saves the state and ends all workers at the same step."""

import contextlib
import signal
import threading
import time

import keras

# What the process ends with, "try again later" among the exit codes of Unix: the same command goes on.
EXIT_CODE = 75

# Workers ask each other this often, in seconds, whether one of them has to end.
INTERVAL = 2


class Preempted(Exception):
    """The run was told to end; its state is saved."""


class EndWhenTold(keras.callbacks.Callback):
    """Saves a checkpoint and ends `fit` after a SIGTERM to this worker or to another.

    Before and during an evaluation it waits for the end of that.

    Args:
        saver: The run's `training.loop.callbacks.SaveCheckpoints`, which comes before this callback.
        devices: The run's `training.distribute.devices.Devices`.
        accumulation: Steps that make one of the optimizer: it ends between two of these.

    Raises:
        Preempted: From `fit`.
    """

    def __init__(self, saver, devices, accumulation=1):
        super().__init__()
        self.saver = saver
        self.devices = devices
        self.accumulation = accumulation
        self.told = False
        self._steps_between = 1
        self._steps = 0  # since the last question about the time
        self._asked = None

    @contextlib.contextmanager
    def listening(self):
        """A context in which SIGTERM does not end the process at once."""
        if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
            yield
            return

        def be_told(*_):
            self.told = True

        former = signal.signal(signal.SIGTERM, be_told)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, former)

    def on_train_batch_end(self, batch, logs=None):
        self._steps += 1
        position = self.saver.position
        # Not after the last step of an epoch, whose figures would be lost: its end asks.
        can_end = position.step % self.accumulation == 0 and position.step % position.steps_per_epoch
        if can_end and self._steps >= self._steps_between and self._must_end():
            self.saver.save()
            raise Preempted

    def on_epoch_end(self, epoch, logs=None):
        # A step may have asked just before: the time since then says little about that of a step.
        if self.devices.sum([self.told])[0] > 0:
            raise Preempted  # the state was just saved

    def _must_end(self):
        """Asks all workers, at steps on which they agree: about as often as `INTERVAL` says."""
        now = time.monotonic()
        passed = INTERVAL if self._asked is None else now - self._asked
        told, seconds = self.devices.sum([self.told, passed])
        if self.devices.workers > 1 and self._asked is not None:
            per_step = seconds / self.devices.workers / self._steps
            self._steps_between = int(min(max(INTERVAL / max(per_step, 1e-6), 1), 1000))
        self._steps, self._asked = 0, now
        return told > 0
