"""What a user sees of the commands before anything is trained."""

import pytest

from training.__main__ import main
from training.recipes import FINETUNING, PRETRAINING


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

    def test_impossible_value(self, command, tmp_path):
        message = self.fails(tmp_path, command, "--data", "digits", "--epochs", "0", "--warmup-epochs", "0")
        assert message == "error: epochs must be positive. Received: epochs=0"

    def test_unknown_field(self, command, tmp_path, capsys):
        self.fails(tmp_path, command, "--data", "digits", "--epoch", "3")
        assert "unrecognized arguments: --epoch 3" in capsys.readouterr().err


def test_weights_of_an_unfinished_run(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    message = r"weights must be of a finished run. Received: .* without fcmae.keras or classifier.keras"
    with pytest.raises(SystemExit, match=message):
        main(["finetune", "--data", "digits", "--weights", str(tmp_path), "--runs", str(tmp_path / "runs")])
