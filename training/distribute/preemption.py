"""Ending when told to: a SIGTERM or the first Ctrl-C saves the state and ends all workers at the same step."""

import contextlib
import os
import signal
import threading
import time

import keras

# What the process ends with, "try again later" among the exit codes of Unix: the same command goes on.
EXIT_CODE = 75

# As shells say that a Ctrl-C ended a process.
INTERRUPTED = 130

NOTED = b"\ninterrupted: the state is saved after this step or evaluation; Ctrl-C again ends at once\n"

# Workers ask each other this often, in seconds, whether one of them has to end.
INTERVAL = 2


class Preempted(Exception):
    """A SIGTERM came: the machine is wanted back. The run's state is saved."""


class Interrupted(KeyboardInterrupt):
    """A Ctrl-C came. The run's state is saved.

    Args:
        run: Path of the run's folder; `None` on all workers but the chief.
    """

    def __init__(self, run=None):
        super().__init__(f"The state is saved; the run goes on from there, or finish({str(run)!r}) ends it.")
        self.run = run


class EndWhenTold(keras.callbacks.Callback):
    """Saves a checkpoint and ends `fit` after a SIGTERM or SIGINT (Ctrl-C) to this worker or to another.

    Before and during an evaluation it waits for the end of that.

    Args:
        saver: The run's `training.loop.callbacks.SaveCheckpoints`, which comes before this callback.
        devices: The run's `training.distribute.devices.Devices`.
        accumulation: Steps that make one of the optimizer: it ends between two of these.

    Attributes:
        told: The signal that came, or `None`.

    Raises:
        Preempted: From `fit`, after a SIGTERM.
        Interrupted: From `fit`, after a SIGINT.
    """

    def __init__(self, saver, devices, accumulation=1):
        super().__init__()
        self.saver = saver
        self.devices = devices
        self.accumulation = accumulation
        self.told = None
        self._steps_between = 1
        self._steps = 0  # since the last question about the time
        self._asked = None

    @contextlib.contextmanager
    def listening(self):
        """A context in which SIGTERM and the first SIGINT do not end the process at once."""
        if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
            yield
            return
        listened = [signal.SIGTERM]
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not if it is ignored, as in the background
            listened.append(signal.SIGINT)

        def be_told(number, _):
            self.told = number
            if number == signal.SIGINT:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                os.write(2, NOTED)  # which can be done in the middle of anything

        former = {number: signal.signal(number, be_told) for number in listened}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def on_train_batch_end(self, batch, logs=None):
        self._steps += 1
        position = self.saver.position
        # Not after the last step of an epoch, whose figures would be lost: its end asks.
        can_end = position.step % self.accumulation == 0 and position.step % position.steps_per_epoch
        if can_end and self._steps >= self._steps_between and self._must_end():
            self.saver.save()
            self._end()

    def on_epoch_end(self, epoch, logs=None):
        # A step may have asked just before: the time since then says little about that of a step.
        if self.devices.sum([self.told is not None])[0] > 0:
            self._end()  # the state was just saved

    def _end(self):
        """Says why on all workers: a scheduler, which starts all of them again, comes before a person."""
        if self.devices.sum([self.told == signal.SIGTERM])[0] > 0:
            raise Preempted
        raise Interrupted(self.saver.folder and self.saver.folder.parent)

    def _must_end(self):
        """Asks all workers, at steps on which they agree: about as often as `INTERVAL` says."""
        now = time.monotonic()
        passed = INTERVAL if self._asked is None else now - self._asked
        told, seconds = self.devices.sum([self.told is not None, passed])
        if self.devices.workers > 1 and self._asked is not None:
            per_step = seconds / self.devices.workers / self._steps
            self._steps_between = int(min(max(INTERVAL / max(per_step, 1e-6), 1), 1000))
        self._steps, self._asked = 0, now
        return told > 0
