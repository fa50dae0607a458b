import functools
import json
import shutil

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

import training
from tests.training.runs_in_parts import interrupt
from tests.training.small import finetuning, pretraining, source
from training.__main__ import main
from training.commands import finetune, pretrain, start
from training.errors import RunError
from training.loop import state
from training.loop.train import train

# Eager steps, as in test_train.
EAGER = {"run_eagerly": keras.backend.backend() == "tensorflow"}
FIELDS = {"checkpoint_steps": 2, "deterministic": False, "epochs": 3}
COMMANDS = {
    "finetune": (finetune, finetuning(ema=0.5, weights="a run that is gone", **FIELDS)),
    "pretrain": (pretrain, pretraining(**FIELDS)),
}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(start, "open_source", lambda *arguments, **options: source(24, 11))
    for command, _ in COMMANDS.values():
        monkeypatch.setattr(command, "train", functools.partial(train, **EAGER))


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """Runs by command that were interrupted in the third epoch of three steps, after the checkpoint of step 8."""
    runs = {}
    for name, (command, recipe) in COMMANDS.items():
        runs[name] = tmp_path_factory.mktemp("runs") / name
        with pytest.MonkeyPatch.context() as patch:
            quick.__wrapped__(patch)
            patch.setattr(start, "weights_of", lambda recipe: None)
            interrupt(patch, 9, functools.partial(command.run, recipe, runs[name]))
    return runs


@pytest.fixture
def run(interrupted, tmp_path):
    return shutil.copytree(interrupted["finetune"], tmp_path / "run")


def test_best_is_there_as_soon_as_there_is_one(interrupted):
    """With the averaged weights of its checkpoint."""
    folder = interrupted["finetune"]
    _, content = state.read(folder / "checkpoints" / state.NAME.format(8))
    history, best = content["progress"]["history"], content["progress"]["best"]
    assert best == max(history, key=lambda row: (row["val_accuracy"], -row["step"]))["step"]
    arrays, _ = state.read(folder / "checkpoints" / state.NAME.format(best))
    assert_has_averages(keras.saving.load_model(folder / "best.keras"), arrays)
    assert not (interrupted["pretrain"] / "best.keras").exists(), "without validation there is no best"


def assert_has_averages(model, arrays):
    """That weights are among a checkpoint's arrays of the optimizer."""
    kernels = {array.shape: [] for array in arrays.values()}
    for name, array in arrays.items():
        if name.startswith("optimizer/"):
            kernels[array.shape].append(array)
    for weight in model.get_weights():
        assert any(np.array_equal(weight, array) for array in kernels[weight.shape])


@pytest.mark.parametrize("which", ["newest", "best"])
def test_finished_early(run, which, monkeypatch, capsys):
    progress = state.read(run / "checkpoints" / state.NAME.format(8))[1]["progress"]
    step = {"newest": 8, "best": progress["best"]}[which]
    main(["finish", str(run), *(["--best"] if which == "best" else [])])
    assert f"weights: {run / 'classifier.keras'}" in capsys.readouterr().out
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["steps"] == step
    assert metrics["accuracy"] == progress["history"][min(step // 3, 2) - 1]["accuracy"]
    files = {"classifier.keras", "best.keras", "confusion_matrix.png", "predictions.png", "learning_curves.png"}
    assert files <= {path.name for path in run.iterdir()}
    model = keras.saving.load_model(run / "classifier.keras")
    assert_has_averages(model, state.read(run / "checkpoints" / state.NAME.format(step))[0])
    test = source(24, 11).test
    right = model.predict(test.images, verbose=0).argmax(-1) == test.labels
    assert metrics["top1"] == pytest.approx(right.mean())
    if which == "newest":
        with pytest.raises(RunError, match="This run is finished"):
            training.finish(run)


def test_within_the_first_epoch(run):
    """There are no figures of training yet."""
    arrays, content = state.read(run / "checkpoints" / state.NAME.format(8))
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").mkdir()
    content["progress"] = {"step": 2, "history": [], "best": None}
    save_file(arrays, run / "checkpoints" / state.NAME.format(2), {state.KEY: json.dumps(content)})
    (run / "best.keras").unlink()
    metrics = training.finish(run).metrics
    assert metrics["steps"] == 2
    assert metrics["images"] == 11
    assert not metrics.keys() & {"accuracy", "best_epoch"}
    assert (run / "classifier.keras").exists()
    assert not (run / "best.keras").exists()


def test_pretraining(interrupted, tmp_path):
    run = shutil.copytree(interrupted["pretrain"], tmp_path / "run")
    metrics = training.finish(run).metrics
    assert metrics["steps"] == 8
    assert metrics["loss"] == json.loads((run / "log.json").read_text())[-1]["loss"]
    assert (run / "fcmae.keras").exists()
    assert {path.name for path in (run / "reconstructions").iterdir()} == {"epoch-0001.png", "epoch-0002.png"}


def test_nothing_to_finish(run, tmp_path):
    shutil.rmtree(run / "checkpoints")
    for best in (False, True):
        with pytest.raises(RunError, match="no (best )?checkpoint"):
            training.finish(run, best=best)
    assert not (run / "metrics.json").exists()
    with pytest.raises(OSError, match="nowhere"):
        training.finish(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text('{"kind": "Else"}')
    with pytest.raises(RunError, match="cannot be finished.*a run of Else"):
        training.finish(tmp_path)
