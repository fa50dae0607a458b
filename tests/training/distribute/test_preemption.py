import os
import re
import signal

import keras
import pytest

from tests.training.small import pretraining, source
from training.__main__ import main
from training.commands.pretrain import Pretrain
from training.distribute.devices import Devices
from training.distribute.preemption import INTERVAL, EndWhenTold, Interrupted, Preempted
from training.loop import state
from training.loop.callbacks import Position
from training.loop.train import train
from training.models.build import new_fcmae


class Send(keras.callbacks.Callback):
    """Sends signals to its own process at the end of a step."""

    def __init__(self, step, *numbers):
        super().__init__()
        self.left = step
        self.numbers = numbers

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            for number in self.numbers:
                os.kill(os.getpid(), number)


def trained(folder, sent, *numbers):
    recipe = pretraining(accumulation=2)  # 4 steps an epoch
    train(new_fcmae(recipe, 3), recipe, source(16), folder, callbacks=[Send(sent, *numbers)], run_eagerly=True)


@pytest.mark.parametrize(
    ("number", "end", "sent", "ended"),
    [(signal.SIGTERM, Preempted, 2, 2), (signal.SIGTERM, Preempted, 3, 4), (signal.SIGINT, Interrupted, 2, 2)],
)
def test_signals_save_and_end_between_two_steps_of_the_optimizer(tmp_path, capfd, number, end, sent, ended):
    former = signal.getsignal(number)
    with pytest.raises(end) as error:
        trained(tmp_path, sent, number)
    assert getattr(error.value, "run", tmp_path) == tmp_path
    assert ("Ctrl-C again ends at once" in capfd.readouterr().err) == (number == signal.SIGINT)
    found = state.checkpoints(tmp_path / "checkpoints")
    assert [*found] == [ended]
    _, content = state.read(found[ended])
    assert [row["step"] for row in content["progress"]["history"]] == [4][: ended // 4], "a whole epoch has its figures"
    assert signal.getsignal(number) == former, "another one ends the process"


def test_second_interrupt_ends_at_once(tmp_path):
    with pytest.raises(KeyboardInterrupt) as error:
        trained(tmp_path, 2, signal.SIGINT, signal.SIGINT)
    assert not isinstance(error.value, Interrupted)
    assert not state.checkpoints(tmp_path / "checkpoints")


def test_ignored_interrupt_stays_ignored(tmp_path):
    """As of processes that a shell has started in the background."""
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with EndWhenTold(None, None).listening():
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, former)


@pytest.mark.parametrize(
    ("end", "code", "told"),
    [
        (Preempted(), 75, "the same command goes on"),
        (
            Interrupted("runs/x"),
            130,
            "its state is saved: the same command goes on .*; .* finish runs/x writes",
        ),
        (KeyboardInterrupt(), 130, "a run has its last checkpoint: .* finish FOLDER writes"),
    ],
)
def test_exit_code(end, code, told, monkeypatch, capsys):
    def fail(*_, **__):
        raise end

    monkeypatch.setattr(Pretrain, "run", fail)
    with pytest.raises(SystemExit) as error:
        main(["pretrain", "--data", "digits"])
    assert error.value.code == code
    assert re.search(told, capsys.readouterr().err)


class TestWorkers:
    """Two workers that ask each other."""

    @pytest.fixture
    def worker(self, monkeypatch):
        class Two(Devices):
            def __init__(self):
                super().__init__(addresses=("one:1", "two:2"))
                self.times = []
                self.other_told = 0

            @property
            def asked(self):
                return len(self.times)

            def sum(self, numbers):
                self.times.append(clock.now)
                told, *seconds = numbers
                return [told + self.other_told, *(2 * each for each in seconds)]

        class Saver:
            def __init__(self):
                self.position = Position(0, 10**6)
                self.saved = 0

            def save(self):
                self.saved += 1

        class Clock:
            now = 100.0

            def monotonic(self):
                return self.now

        clock = Clock()
        monkeypatch.setattr("training.distribute.preemption.time", clock)
        callback = EndWhenTold(Saver(), Two())
        callback.clock = clock
        return callback

    def step(self, worker, seconds):
        worker.clock.now += seconds
        worker.saver.position.step += 1
        worker.on_train_batch_end(0)

    def test_they_ask_every_few_seconds(self, worker):
        for _ in range(1000):
            self.step(worker, 0.01)
        per_question = INTERVAL / 0.01
        assert 1000 / per_question <= worker.devices.asked <= 1000 / per_question + 3

    def test_slow_steps_each_ask(self, worker):
        for _ in range(10):
            self.step(worker, 3 * INTERVAL)
        assert worker.devices.asked == 10

    @pytest.mark.parametrize("accumulation", [1, 4])
    @pytest.mark.parametrize("seconds", [0.01, 0.3, 2.5])
    @pytest.mark.parametrize("steps", [1, 2, 13, 100])
    def test_ends_of_epochs_make_no_long_silence(self, worker, seconds, steps, accumulation):
        """A step may ask just before the end of an epoch does, after which little time has passed."""
        worker.accumulation, worker.saver.position.steps_per_epoch = accumulation, steps
        for epoch in range(1000 // steps):
            for _ in range(steps):
                self.step(worker, seconds)
            worker.clock.now += 0.001
            worker.on_epoch_end(epoch)
        silences = [two - one for one, two in zip(worker.devices.times, worker.devices.times[1:])]
        assert max(silences) <= INTERVAL + accumulation * (seconds + 0.001)

    def test_one_ends_all(self, worker):
        worker.devices.other_told = 1
        with pytest.raises(Preempted):
            self.step(worker, 1)
        assert worker.saver.saved == 1

    def test_at_the_end_of_an_epoch_it_is_saved_already(self, worker):
        worker.told = signal.SIGTERM
        with pytest.raises(Preempted):
            worker.on_epoch_end(0)
        assert worker.saver.saved == 0

    @pytest.mark.parametrize(("other", "end"), [(0, Interrupted), (1, Preempted)])
    def test_a_scheduler_comes_before_a_person(self, worker, other, end):
        worker.told, worker.devices.other_told, worker.saver.folder = signal.SIGINT, other, None
        with pytest.raises(end):
            worker.on_epoch_end(0)

    def test_another_s_word_counts_at_the_end_of_an_epoch(self, worker):
        worker.devices.other_told = 1
        with pytest.raises(Preempted):
            worker.on_epoch_end(0)
