import shutil
from functools import partial

import pytest

from tests.training.small import pretraining, source
from training.commands import pretrain, training_run
from training.evaluation import reconstructions
from training.loop import state
from training.loop.train import train


def killed(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("channels", "module", "function"),
    [
        (2, reconstructions, "reconstructions"),
        pytest.param(4, reconstructions, "reconstructions", marks=pytest.mark.slow),
        pytest.param(5, shutil, "copyfile", marks=pytest.mark.slow),
    ],
)
def test_killed_before_the_last_pictures(tmp_path, monkeypatch, channels, module, function):
    """The checkpoint of the last epoch was saved: nothing is left to be trained, but to be painted."""
    monkeypatch.setattr(training_run, "open_source", lambda *args, **kwargs: source(channels=channels))
    monkeypatch.setattr(training_run, "train", partial(train, run_eagerly=True))
    recipe, run = pretraining(epochs=1, warmup_epochs=0, batch_size=24), tmp_path / "run"
    latest, last = run / "reconstructions.png", run / "reconstructions" / "epoch-0001.png"
    with monkeypatch.context() as patch:
        patch.setattr(module, function, killed)
        with pytest.raises(KeyboardInterrupt):
            pretrain.run(recipe, run)
    assert [*state.checkpoints(run / "checkpoints")] == [1]
    assert not last.exists()
    pretrain.run(recipe, run)
    assert latest.read_bytes() == last.read_bytes()
