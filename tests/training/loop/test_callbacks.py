import math
from types import SimpleNamespace

import keras
import pytest

from training.errors import TrainingError
from training.loop import state
from training.loop.callbacks import Position, SaveCheckpoints, StopIfNotFinite


def test_epoch_without_a_figure_is_never_the_best():
    """As a mean over classes of which none was met. Of equally good epochs, the first is the best."""
    log = SimpleNamespace(history=[])
    saver = SaveCheckpoints(None, None, log, SimpleNamespace(check=lambda: None), 1, "val_mean_iou")
    best = []
    for step, value in enumerate((math.nan, 0.2, math.nan, 0.5, 0.4, 0.5)):
        log.history.append({"step": step, "val_mean_iou": value})
        saver.on_epoch_end(step)
        best.append(saver.best)
    assert best == [0, 1, 1, 3, 3, 3]


@pytest.mark.backends
@pytest.mark.parametrize("loss", [math.nan, math.inf])
@pytest.mark.parametrize(("bad", "saved"), [(1, []), (2, []), (3, [2]), (4, [2]), (6, [2, 4])])
def test_what_a_step_made_whose_loss_is_not_finite_is_never_saved(tmp_path, loss, bad, saved):
    """Neither at a step with a checkpoint, nor just before one, nor at the end of the epoch."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.optimizer.build(model.trainable_variables)
    position, log = Position(0, 6), SimpleNamespace(history=[])
    guard = StopIfNotFinite(position, tmp_path)
    saver = SaveCheckpoints(tmp_path, position, log, guard, 2, "loss")
    saver.set_model(model)

    def run():
        for step in range(1, 7):
            for callback in (position, guard, saver):
                callback.on_train_batch_end(step, {"loss": loss if step == bad else 1.0})
        log.history.append({"step": 6, "loss": 1.0})
        saver.on_epoch_end(0)

    with pytest.raises(TrainingError, match=rf"loss was {loss} at step {bad}\."):
        run()
    assert sorted(state.checkpoints(tmp_path)) == saved
