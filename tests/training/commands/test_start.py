"""What a user sees of the commands before anything is trained."""

import dataclasses
import logging

import pytest

import keras_cnv2
from keras_cnv2.checkpoints import load
from tests.training.runs_in_parts import interrupted
from training.__main__ import main
from training.commands.finetune import Finetune
from training.commands.training_run import replaced_weights
from training.files import write_json
from training.recipes.images import FINETUNING, PRETRAINING
from training.runs.folder import open_run
from training.runs.names import METRICS


def test_recipes_are_all_printed(capsys):
    main(["recipes"])
    text = capsys.readouterr().out
    for name in FINETUNING.keys() | PRETRAINING.keys():
        assert f" {name} " in text.replace("\n", " \n")
    for title in ("table 8", "tables 9 to 11", "table 12", "table 13"):
        assert title in text


def test_one_recipe(capsys):
    main(["recipes", "--only", "imagenet_base"])
    text = capsys.readouterr().out
    assert "0.000625" in text
    assert "imagenet_tiny" not in text


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
class TestMistakes:
    def fails(self, tmp_path, *arguments):
        with pytest.raises(SystemExit) as error:
            main([*arguments, "--runs", str(tmp_path / "runs")])
        assert not (tmp_path / "runs").exists(), "nothing stays behind"
        return str(error.value.code)

    def test_no_data(self, command, tmp_path):
        assert "data must be a folder, tfds:NAME, digits or an .npz file" in self.fails(tmp_path, command)

    def test_no_folder(self, command, tmp_path):
        assert "Received: nowhere" in self.fails(tmp_path, command, "--data", "nowhere")

    def test_names_cannot_steer_the_terminal(self, command, tmp_path):
        assert "Received: ?[2J" in self.fails(tmp_path, command, "--data", "\x1b[2J")

    def test_impossible_value(self, command, tmp_path):
        message = self.fails(tmp_path, command, "--data", "digits", "--epochs", "0", "--warmup-epochs", "0")
        assert message == "error: epochs must be positive. Received: epochs=0"

    def test_unknown_field(self, command, tmp_path, capsys):
        self.fails(tmp_path, command, "--data", "digits", "--epoch", "3")
        told = capsys.readouterr().err
        assert told.startswith(f"usage: python -m training {command} [-h]")
        assert told.endswith(f"training {command}: error: unrecognized arguments: --epoch 3\n")


@pytest.mark.parametrize(
    ("fields", "told"), [({"layer_decay": 0.9}, True), ({"layer_decay": 1.0}, False), ({"weights": "fcmae"}, False)]
)
def test_layer_decay_from_scratch(tmp_path, caplog, fields, told):
    recipe = dataclasses.replace(FINETUNING["quickstart"], **{"layer_decay": 0.9, "weights": None, **fields})
    Finetune(recipe, tmp_path / "run").start()
    assert ("training from scratch with layer_decay=0.9" in caplog.text) == told


@pytest.mark.parametrize("resumes", [False, True])
def test_resumed_run_does_not_warn_of_weights_that_its_checkpoint_replaces(tmp_path, caplog, resumes):
    model = keras_cnv2.ConvNeXtV2Backbone(depths=(1, 1, 1, 1), dims=(4, 6, 8, 10))
    model.save(tmp_path / "weights.keras")
    if resumes:
        interrupted(tmp_path / "run", FINETUNING["quickstart"])
    with replaced_weights(tmp_path / "run"):
        keras_cnv2.ConvNeXtV2(depths=(1, 1, 1, 1), dims=(4, 6, 8, 10), classes=3, weights=tmp_path / "weights.keras")
    assert ("keeps its initial values" in caplog.text) == (not resumes)
    logging.getLogger(load.__name__).warning("another")
    assert "another" in caplog.text


@pytest.mark.parametrize("text", ["0", "-1", "1.5"])
@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("evaluate --data x --weights y", "--batch-size"),
        ("evaluate --data x --weights y", "--image-size"),
        ("analyze y --data x", "--batch-size"),
        ("analyze y --data x", "--image-size"),
        ("analyze y --data x", "--images"),
        ("quickstart", "--finetune-epochs"),
    ],
)
def test_numbers_that_must_be_positive(command, option, text, capsys):
    with pytest.raises(SystemExit):
        main([*command.split(), f"{option}={text}"])
    assert f"argument {option}: must be a positive int. Received: {text!r}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModuleNotFoundError("No module named 'x'", name="x"), "error: No module named 'x'; .*keras_cnv2\\[train\\]"),
        (ImportError('x is needed: pip install "x"'), 'error: x is needed: pip install "x"$'),
    ],
)
def test_missing_packages(error, message, monkeypatch):
    def fail(args):
        raise error

    monkeypatch.setattr("training.commands.recipes.main", fail)
    with pytest.raises(SystemExit, match=message):
        main(["recipes"])


def test_broken_packages_are_not_taken_for_missing_ones(monkeypatch):
    def fail(args):
        raise ImportError("cannot import name 'x' from 'y'", name="y")

    monkeypatch.setattr("training.commands.recipes.main", fail)
    with pytest.raises(ImportError, match="cannot import name"):
        main(["recipes"])


def test_quickstart_keeps_no_phase_of_another_recipe(tmp_path):
    """As where it was interrupted after its pre-training, and is repeated with another seed."""
    folder = tmp_path / "quickstart" / "pretraining"
    open_run(folder, PRETRAINING["quickstart"])
    write_json(folder / METRICS, {"loss": 1.0, "first_loss": 2.0})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    with pytest.raises(
        SystemExit, match=r"another recipe.*another --name\. Received: .*pretraining with seed: 0 then, 1"
    ):
        main(["quickstart", "--runs", str(tmp_path), "--seed", "1"])
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == before
