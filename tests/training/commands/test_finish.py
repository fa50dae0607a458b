import functools
import json
import shutil

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

import keras_cnv2
import training
from keras_cnv2.commands.main import main as library
from keras_cnv2.restore import restore_model
from tests.training.runs_in_parts import interrupt
from tests.training.small import finetuning, pretraining, source
from training.__main__ import main
from training.commands import evaluate, finetune, pretrain, training_run
from training.commands.weights import weights_of
from training.errors import RecipeError, RunError
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
    for module in (training_run, evaluate):
        monkeypatch.setattr(module, "open_source", lambda *arguments, **options: source(24, 11))
    monkeypatch.setattr(training_run, "train", functools.partial(train, **EAGER))


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """Runs by command that were interrupted in the third epoch of three steps, after the checkpoint of step 8."""
    runs = {}
    for name, (command, recipe) in COMMANDS.items():
        runs[name] = tmp_path_factory.mktemp("runs") / name
        with pytest.MonkeyPatch.context() as patch:
            quick.__wrapped__(patch)
            patch.setattr(training_run, "weights_of", lambda recipe: None)
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


def equal(one, two):
    return all(map(np.array_equal, one.get_weights(), two.get_weights()))


def test_checkpoints_are_weights(interrupted, tmp_path, monkeypatch, capsys):
    """Of all commands, as is the folder of a run that is not finished: its best model, else its newest checkpoint."""
    run, pretrained = interrupted["finetune"], interrupted["pretrain"]
    best = keras.saving.load_model(run / "best.keras")
    paths = {step: str(path) for step, path in state.checkpoints(run / "checkpoints").items()}
    of_best = paths[state.read(max(paths.values()))[1]["progress"]["best"]]
    assert equal(restore_model(of_best), best)
    assert equal(restore_model(run), best)
    assert not equal(restore_model(min(paths.values())), restore_model(max(paths.values())))
    assert describe(restore_model(of_best)) == describe(restore_model(run / "best.keras"))
    keras.utils.save_img(tmp_path / "a.png", source(24, 11).test.images[0])
    told = []
    for weights in (of_best, str(run), str(run / "best.keras")):
        assert library(["predict", str(tmp_path / "a.png"), "--weights", weights, "--json"]) == 0
        told.append(capsys.readouterr().out)
        assert library(["info", weights]) == 0
        assert "class 0, class 1, class 2" in capsys.readouterr().out
        scores = training.evaluate(weights=weights, data="any")
        assert scores["top1"] == training.evaluate(weights=run / "best.keras", data="any")["top1"]
    assert told[0] == told[1] == told[2]
    newest = max(state.checkpoints(pretrained / "checkpoints").values())
    assert isinstance(restore_model(pretrained), keras_cnv2.FCMAE)
    assert equal(restore_model(pretrained), restore_model(newest))
    assert library(["convert", str(pretrained), str(tmp_path / "a.safetensors")]) == 0
    backbone = keras_cnv2.ConvNeXtV2Backbone(
        **pretraining().architecture, stem_stride=1, input_shape=(None, None, 3), weights=newest
    )
    assert np.array_equal(backbone.get_weights()[0], restore_model(newest).get_weights()[0])


def describe(model):
    return {key: value for key, value in model.get_config().items() if key != "name"}


def test_run_that_is_not_finished_is_started_from(interrupted, caplog):
    recipe = finetuning(weights=str(interrupted["pretrain"]))
    assert weights_of(recipe).endswith("step-0000000008.safetensors")
    assert "is an unfinished run: its checkpoints/step-0000000008.safetensors is used" in caplog.text
    with pytest.raises(RunError, match="a run of Pretraining that is not finished"):
        weights_of(recipe, ("classifier.keras",))


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
        with pytest.raises(RunError, match="This run is already finished"):
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
        with pytest.raises(RunError, match="no checkpoint|best checkpoint is missing"):
            training.finish(run, best=best)
    assert not (run / "metrics.json").exists()
    with pytest.raises(RecipeError, match="Received: .*nowhere, which does not exist"):
        training.finish(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text('{"kind": "Else"}')
    with pytest.raises(RunError, match="cannot be finished.*a run of Else"):
        training.finish(tmp_path)
