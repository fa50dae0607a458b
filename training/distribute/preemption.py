"""Ends a run on request: a SIGTERM or the first Ctrl-C saves the state and ends all workers at the same step."""

import contextlib
import os
import signal
import threading
import time

import keras

# Exit code after a SIGTERM: EX_TEMPFAIL, "try again later". The same command resumes the run.
EXIT_CODE = 75

# Exit code after a Ctrl-C, as in shells.
INTERRUPTED = 130

NOTED = b"\ninterrupted: the state is saved after this step or evaluation; Ctrl-C again ends at once\n"

# Interval in seconds at which workers ask each other whether one of them has to end.
INTERVAL = 2


class Preempted(Exception):
    """Raised after a SIGTERM, e.g. when the machine is preempted. The run's state is saved."""


class Interrupted(KeyboardInterrupt):
    """Raised after a Ctrl-C. The run's state is saved.

    Args:
        run: Path of the run's folder; `None` on all workers except the chief.
    """

    def __init__(self, run=None):
        super().__init__(f"The state is saved; the run goes on from there, or finish({str(run)!r}) ends it.")
        self.run = run


class EndWhenTold(keras.callbacks.Callback):
    """Saves a checkpoint and ends `fit` after a SIGTERM or SIGINT (Ctrl-C) to this worker or to another.

    After the last step of an epoch and during its evaluation, it waits for the end of the epoch.

    Args:
        saver: The run's `training.loop.callbacks.SaveCheckpoints`, which must come before this callback.
        devices: The run's `training.distribute.devices.Devices`.
        accumulation: Number of steps whose gradients make one optimizer step. Training ends between two optimizer
            steps.

    Attributes:
        told: The signal that was received, or `None`.

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
        self._steps = 0  # since the workers last asked each other
        self._asked = None

    @contextlib.contextmanager
    def listening(self):
        """A context in which SIGTERM and the first SIGINT do not end the process at once."""
        if threading.current_thread() is not threading.main_thread():  # only the main thread can handle signals
            yield
            return
        listened = [signal.SIGTERM]
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # background jobs ignore SIGINT
            listened.append(signal.SIGINT)

        def be_told(number, _):
            self.told = number
            if number == signal.SIGINT:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                os.write(2, NOTED)  # unlike `print`, safe in a signal handler

        former = {number: signal.signal(number, be_told) for number in listened}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def on_train_batch_end(self, batch, logs=None):
        self._steps += 1
        position = self.saver.position
        # Not after the last step of an epoch, whose metrics would be lost; `on_epoch_end` asks then.
        can_end = position.step % self.accumulation == 0 and position.step % position.steps_per_epoch
        if can_end and self._steps >= self._steps_between and self._must_end():
            self.saver.save()
            self._end()

    def on_epoch_end(self, epoch, logs=None):
        # Not `_must_end`: a step may have asked just before, so the time since then is no measure of a step's time.
        if self.devices.sum([self.told is not None])[0] > 0:
            self._end()  # the state was just saved

    def _end(self):
        """Raises the same exception on all workers. SIGTERM has priority: the scheduler will restart all workers."""
        if self.devices.sum([self.told == signal.SIGTERM])[0] > 0:
            raise Preempted
        raise Interrupted(self.saver.folder and self.saver.folder.parent)

    def _must_end(self):
        """Asks all workers, about every `INTERVAL` seconds, at the same step on all of them."""
        now = time.monotonic()
        passed = INTERVAL if self._asked is None else now - self._asked
        told, seconds = self.devices.sum([self.told is not None, passed])
        if self.devices.workers > 1 and self._asked is not None:
            per_step = seconds / self.devices.workers / self._steps
            self._steps_between = int(min(max(INTERVAL / max(per_step, 1e-6), 1), 1000))
        self._steps, self._asked = 0, now
        return told > 0
