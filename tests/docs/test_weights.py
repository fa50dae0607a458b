"""What docs/weights.md says is so."""

import json
import re
import shutil
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import safetensors.numpy

import keras_cnv2
from keras_cnv2.checkpoints.registry import find_checkpoint
from keras_cnv2.commands import main as library_command
from tests.checkpoints.samples import FILES, SMALL
from tests.docs.pages import (
    ROOT,
    blocks,
    commands,
    table,
)


def message(function, *arguments):
    """The `CheckpointError` that a call raises."""
    with pytest.raises(keras_cnv2.CheckpointError) as error:
        function(*arguments)
    return str(error.value)


class TestWeights:
    def test_commands_run(self, tmp_path, monkeypatch, capsys):
        """One after the other, but for the one of a published checkpoint."""
        monkeypatch.chdir(tmp_path)
        shutil.copy(FILES / "official_dense.pt", "checkpoint.pt")
        lines = [line for line in commands("weights.md", "keras-cnv2") if "convnextv2_tiny.fcmae_ft_in1k" not in line]
        assert [line[0] for line in lines[:7]] == ["info"] + ["convert"] * 6
        for line in lines[:7]:
            assert library_command.main(line) == 0, capsys.readouterr().err
        models = [keras_cnv2.ConvNeXtV2(**SMALL, classes=10) for _ in range(2)]
        for model, file in zip(models, ("checkpoint.pt", "model.keras")):
            keras_cnv2.load_checkpoint(model, file)
        for first, last in zip(*(model.get_weights() for model in models), strict=True):
            np.testing.assert_array_equal(first, last)

    def test_examples(self, tmp_path, small_sizes, monkeypatch):
        monkeypatch.chdir(tmp_path)
        model = keras_cnv2.ConvNeXtV2Atto()
        keras_cnv2.save_checkpoint(model, "checkpoint.safetensors")
        codes = [code for code in blocks("weights.md", "python") if "checkpoint.pt" in code]
        assert codes
        names = {}
        for code in codes:
            exec(compile(code.replace("checkpoint.pt", "checkpoint.safetensors"), "weights.md", "exec"), names)
        assert names["tensors"].keys() == keras_cnv2.state_dict(model, "transformers").keys()
        assert (tmp_path / "model.safetensors").is_file()

    def test_folder(self, tmp_path, monkeypatch, capsys):
        """In place of a repository."""
        monkeypatch.chdir(tmp_path)
        keras.utils.save_img("photo.jpg", np.zeros((64, 64, 3), "uint8"))
        own = {"class_names": ["cat", "dog"], "image_size": 64, "mean": (0.5,) * 3, "std": (0.25,) * 3}
        keras_cnv2.save_pretrained(keras_cnv2.ConvNeXtV2(**SMALL, classes=2, **own), "folder")
        (code,) = [code for code in blocks("weights.md", "python") if "hf://owner/name" in code]
        names = {}
        exec(compile(code.replace('"hf://owner/name")', '"folder")'), "weights.md", "exec"), names)
        assert {name: getattr(names["model"], name) for name in own} == {**own, "class_names": ("cat", "dog")}
        (line,) = [line for line in commands("weights.md", "keras-cnv2") if "hf://owner/name" in line]
        assert library_command.main([word.replace("hf://owner/name", "folder") for word in line]) == 0
        assert re.search("% +(cat|dog)", capsys.readouterr().out)

    def test_moving_average(self, tmp_path, monkeypatch, capsys):
        torch = pytest.importorskip("torch")
        monkeypatch.chdir(tmp_path)
        models = [keras_cnv2.ConvNeXtV2(**SMALL, classes=2) for _ in range(2)]
        states = [{k: torch.from_numpy(v) for k, v in keras_cnv2.state_dict(model).items()} for model in models]
        torch.save(dict(zip(("state_dict", "state_dict_ema"), states)), "model_best.pth.tar")
        (line,) = [line for line in commands("weights.md", "keras-cnv2") if "#state_dict" in " ".join(line)]
        assert library_command.main(line) == 0, capsys.readouterr().err
        raw = safetensors.numpy.load_file("raw.safetensors")
        np.testing.assert_array_equal(raw["head.weight"], states[0]["head.weight"].numpy())

    @pytest.mark.slow
    def test_pytorch(self, tmp_path, monkeypatch):
        pytest.importorskip("torch")
        pytest.importorskip("transformers")
        monkeypatch.chdir(tmp_path)
        model = keras_cnv2.ConvNeXtV2Atto()
        keras_cnv2.save_checkpoint(model, "hf.safetensors", "transformers")
        (code,) = [code for code in blocks("weights.md", "python") if "transformers import" in code]
        names = {}
        exec(compile(code, "weights.md", "exec"), names)
        kernel = names["theirs"].state_dict()["classifier.weight"].numpy()
        np.testing.assert_array_equal(kernel, np.transpose(model.get_layer("head").kernel))

    def test_errors(self, tmp_path, monkeypatch, capsys):
        """Each message of the table is met, but for those of a lost connection and of HDF5's hanging and crashing.

        Those stand in the code; tests/checkpoints has them.
        """
        monkeypatch.chdir(tmp_path)
        size, smaller = SMALL, {**SMALL, "depths": (1, 1, 1, 1)}
        ten, thousand = (keras_cnv2.ConvNeXtV2(**size, classes=classes) for classes in (10, 1000))
        other = keras_cnv2.ConvNeXtV2(**smaller, classes=10)
        narrow = keras_cnv2.ConvNeXtV2(size["depths"], (4, 6, 8, 10), classes=10)
        encoder = keras_cnv2.ConvNeXtV2Backbone(**size)
        tensors = keras_cnv2.state_dict(encoder)
        keras_cnv2.save_checkpoint(encoder, "encoder.safetensors")
        safetensors.numpy.save_file(
            {name: tensor for name, tensor in tensors.items() if not name.startswith("downsample_layers.0")},
            "part.safetensors",
        )
        keras.Sequential([encoder, keras.layers.GlobalAveragePooling2D()]).save("head.keras")
        ten.save("ten.keras")
        rewrite("head.keras", "mine.keras", b'"module": "keras.layers"', b'"module": "my.layers"')
        rewrite("ten.keras", "other.keras", b'"classes": 10', b'"classes": 11')
        met = [
            message(keras_cnv2.load_checkpoint, model, source)
            for model, source in (
                (ten, keras_cnv2.state_dict(thousand)),
                (ten, keras_cnv2.state_dict(other)),  # missing
                (other, keras_cnv2.state_dict(ten)),  # left over
                (ten, keras_cnv2.state_dict(narrow)),
                (ten, {"layer.weight": np.zeros(3)}),
                (ten, FILES / "truncated.pt"),
                (ten, FILES / "malicious.pt"),
            )
        ]
        met += [message(find_checkpoint, name) for name in ("fcmae_ft", "fcmae")]
        keras_cnv2.save_pretrained(ten, "folder")
        config = json.loads(Path("folder/config.json").read_text())
        for change in ({"depths": [1, 1, 1, 1]}, {"hidden_act": "relu"}):
            Path("folder/config.json").write_text(json.dumps({**config, **change}))
            met.append(message(keras_cnv2.from_pretrained, "folder"))
        Path("a.jpg").touch()  # is looked at later
        for file in ("part.safetensors", "mine.keras", "other.keras", "encoder.safetensors"):
            assert library_command.main(["predict", "a.jpg", "--weights", file]) == 1
            met.append(capsys.readouterr().err)
        met += [(ROOT / "keras_cnv2" / "checkpoints" / name).read_text() for name in ("hub.py", "read_hdf5.py")]
        quoted = [quote for row in table("weights.md", "| it says") for quote in re.findall(r'"([^"]+)"', row[0])]
        assert quoted
        for quote in quoted:
            pattern = re.escape(quote).replace(r"\.\.\.", ".*").replace("5\\ seconds", ".*seconds")
            assert any(re.search(pattern, text) for text in met), quote


def rewrite(source, target, old, new):
    """A Keras file with another configuration."""
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(target, "w") as after:
        for name in before.namelist():
            content = before.read(name)
            after.writestr(name, content.replace(old, new) if name == "config.json" else content)
