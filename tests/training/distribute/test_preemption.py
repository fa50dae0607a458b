import os
import signal

import keras
import pytest

from tests.training.small import pretraining, source
from training.__main__ import main
from training.commands import pretrain
from training.distribute.devices import Devices
from training.distribute.preemption import EXIT_CODE, INTERVAL, EndWhenTold, Preempted
from training.loop import state
from training.loop.callbacks import Position
from training.loop.train import train
from training.models.build import new_fcmae


class SendSigterm(keras.callbacks.Callback):
    """Sends SIGTERM to its own process at the end of a step."""

    def __init__(self, step):
        super().__init__()
        self.left = step

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(("sent", "ended"), [(2, 2), (3, 4)])
def test_sigterm_saves_and_ends_between_two_steps_of_the_optimizer(tmp_path, sent, ended):
    recipe = pretraining(accumulation=2)  # 4 steps an epoch
    model = new_fcmae(recipe, 3)
    former = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted):
        train(model, recipe, source(16), tmp_path, callbacks=[SendSigterm(sent)], run_eagerly=True)
    found = state.checkpoints(tmp_path / "checkpoints")
    assert [*found] == [ended]
    _, content = state.read(found[ended])
    assert [row["step"] for row in content["progress"]["history"]] == [4][: ended // 4], "a whole epoch has its figures"
    assert signal.getsignal(signal.SIGTERM) == former, "another SIGTERM ends the process"


def test_exit_code(monkeypatch, capsys):
    def end(*_):
        raise Preempted

    monkeypatch.setattr(pretrain, "run", end)
    with pytest.raises(SystemExit) as error:
        main(["pretrain", "--data", "digits"])
    assert error.value.code == EXIT_CODE == 75
    assert "the same command goes on" in capsys.readouterr().err


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
        worker.told = True
        with pytest.raises(Preempted):
            worker.on_epoch_end(0)
        assert worker.saver.saved == 0

    def test_another_s_word_counts_at_the_end_of_an_epoch(self, worker):
        worker.devices.other_told = 1
        with pytest.raises(Preempted):
            worker.on_epoch_end(0)
