import pytest

import keras_cnv2
from keras_cnv2.checkpoints.registry import CHECKPOINTS, OURS
from keras_cnv2.detection import Detector
from keras_cnv2.sizes import SIZES
from tests.checkpoints.samples import FILES, classifier, snapshot, unchanged
from tests.detection.samples import tiny_mask_rcnn

pytestmark = pytest.mark.lowest

FILE = str(FILES / "official_dense.pt")
NAMES = [f"sort {i}" for i in range(10)]


def test_list(run):
    code, out, _ = run("list")
    assert code == 0
    assert all(name in out for name in SIZES)
    for row in CHECKPOINTS:
        (line,) = [line for line in out.splitlines() if line.split()[:1] == [row.name]]
        assert ("yes" in line) == (row in OURS)  # the others are not in the cache
        assert row.top1 is None or str(row.top1) in line


def test_list_shows_what_is_here(run, monkeypatch):
    monkeypatch.setattr("keras_cnv2.commands.main.is_cached", lambda row: row.size == "pico")
    _, out, _ = run("list")
    assert [line.split()[0] for line in out.splitlines() if line.endswith("yes")] == [
        row.name for row in CHECKPOINTS if row.size == "pico" or row in OURS
    ]


class TestInfo:
    def test_size(self, run):
        _, out, _ = run("info", "tiny")
        assert "28635496" in out
        assert "convnextv2_tiny.fcmae_ft_in22k_in1k_384" in out

    def test_checkpoint(self, run):
        _, out, _ = run("info", "convnextv2_tiny.fcmae_ft_in22k_in1k_384")
        facts = dict(line.split(maxsplit=1) for line in out.splitlines())
        assert facts["licence"] == "CC BY-NC 4.0"
        assert (facts["image_size"], facts["resize"], facts["top1"], facts["here"]) == (
            "384",
            "squash",
            "85.1",
            "False",
        )

    def test_ten_names_in_full(self, run):
        _, out, _ = run("info", "convnextv2_atto.cifar10")
        (names,) = (line for line in out.splitlines() if line.startswith("class_names"))
        assert names.endswith(", dog, frog, horse, ship, truck")

    def test_file(self, run):
        _, out, _ = run("info", FILES / "official_fcmae_sparse.pt")
        facts = dict(line.split(maxsplit=1) for line in out.splitlines())
        assert facts["naming"] == "official sparse fcmae"
        assert (facts["depths"], facts["dims"], facts["decoder_dim"]) == ("1, 1, 2, 1", "8, 16, 24, 32", "48")

    def test_file_with_names(self, run):
        keras_cnv2.save_checkpoint(classifier(class_names=NAMES, image_size=96), "m.safetensors")
        _, out, _ = run("info", "m.safetensors")
        assert "sort 0, sort 1" in out
        assert "96" in out

    def test_model_around_an_encoder(self, run):
        """Also in a `Detector`."""
        model = tiny_mask_rcnn(class_names=("cat", "dog", "owl"), image_size=64)
        for saved in (model, Detector(model)):
            saved.save("m.keras")
            _, out, _ = run("info", "m.keras")
            facts = dict(line.split(maxsplit=1) for line in out.splitlines())
            assert (facts["model"], facts["classes"], facts["class_names"]) == ("MaskRCNN", "3", "cat, dog, owl")
            assert (facts["image_size"], facts["masks"], facts["stem_stride"]) == ("64", "True", "4")

    @pytest.mark.parametrize("name", ["nope", FILES / "malicious.pt", "none.safetensors"])
    def test_error(self, run, name):
        code, out, err = run("info", name)
        assert (code, out) == (1, "")
        assert err.count("error: ") == 1


class TestConvert:
    @pytest.mark.parametrize("naming", ["official", "timm", "transformers"])
    def test_there_and_back(self, run, naming):
        assert run("convert", FILE, "there.safetensors", "--naming", naming)[0] == 0
        assert run("convert", "there.safetensors", "back.keras")[0] == 0
        assert unchanged(classifier(weights="back.keras"), snapshot(classifier(weights=FILE)))

    def test_fcmae(self, run):
        sparse = FILES / "official_fcmae_sparse.pt"
        assert run("convert", sparse, "m.safetensors")[0] == 0
        with open("m.safetensors", "rb") as file:
            assert b"encoder.stages.0.0.dwconv.weight" in file.read()
        assert run("convert", "m.safetensors", "m.weights.h5")[0] == 0

    def test_names_travel(self, run):
        classifier(class_names=NAMES).save("m.keras")
        assert run("convert", "m.keras", "m.safetensors", "--naming", "timm")[2] == ""
        assert classifier(weights="m.safetensors").class_names == tuple(NAMES)
        _, _, err = run("convert", "m.safetensors", "m.weights.h5")
        assert "without class_names, classifier_activation, which .weights.h5 files cannot hold" in err

    def test_naming_of_a_keras_file(self, run, tmp_path):
        code, _, err = run("convert", FILE, "m.keras", "--naming", "timm")
        assert code == 1
        assert "--naming is for .safetensors" in err
        assert [*tmp_path.iterdir()] == []

    def test_file_that_is_there(self, run, tmp_path):
        (tmp_path / "m.safetensors").write_text("precious")
        code, _, err = run("convert", FILE, "m.safetensors")
        assert code == 1
        assert "--overwrite" in err
        assert (tmp_path / "m.safetensors").read_text() == "precious"
        assert run("convert", FILE, "m.safetensors", "--overwrite")[0] == 0
        assert unchanged(classifier(weights="m.safetensors"), snapshot(classifier(weights=FILE)))

    @pytest.mark.parametrize("target", ["m.pt", "m", "none/m.safetensors"])
    def test_target_that_cannot_be(self, run, target, tmp_path):
        code, _, err = run("convert", FILE, target)
        assert code == 1
        assert "error: " in err
        assert [*tmp_path.iterdir()] == []

    def test_keras_file_into_a_keras_file(self, run, tmp_path):
        """It would lose what a configuration has besides the architecture."""
        classifier().save("m.keras")
        code, _, err = run("convert", "m.keras", "again.keras")
        assert code == 1
        assert "IN is a Keras file already" in err
        assert [path.name for path in tmp_path.iterdir()] == ["m.keras"]

    def test_bad_source(self, run, tmp_path):
        code, _, err = run("convert", FILES / "missing_tensor.safetensors", "m.safetensors")
        assert code == 1
        assert "missing: stages.2.blocks.1.mlp.grn.weight" in err
        assert [*tmp_path.iterdir()] == []


def test_version(run):
    assert run("--version")[:2] == (0, f"keras_cnv2 {keras_cnv2.__version__}\n")


def test_interrupt(run, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_cnv2.commands.main.restore_model", interrupt)
    code, out, err = run("convert", FILE, "m.safetensors")
    assert (code, out) == (130, "")
    assert err.startswith("interrupted")


@pytest.mark.parametrize("arguments", [[], ["unknown"], ["predict"], ["list", "--surplus"]])
def test_wrong_arguments(run, arguments):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "usage: keras-cnv2" in err
