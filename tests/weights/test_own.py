"""The weights that this project trained: what their rows say of the files."""

import functools
import hashlib
import re

import numpy as np
import pytest
import tensorflow as tf

import keras_cnv2
from keras_cnv2.checkpoints import bundled, source
from keras_cnv2.checkpoints.hub import Download
from keras_cnv2.checkpoints.read import open_checkpoint
from keras_cnv2.checkpoints.registry import OURS, find_checkpoint
from keras_cnv2.commands.main import main
from keras_cnv2.restore import read_architecture

LARGEST_MB = 16


@pytest.mark.parametrize("row", OURS, ids=lambda row: row.name)
class TestFiles:
    def test_file_is_the_row_s(self, row):
        path = bundled.checkout_file(row)
        assert path.stat().st_size <= LARGEST_MB * 1e6
        assert hashlib.sha256(path.read_bytes()).hexdigest() == row.sha256
        with open_checkpoint(path) as contents:
            assert contents.metadata == {**row.metadata, "class_names": [*row.class_names]}
            architecture = read_architecture(contents)
        assert (architecture.stem_stride, architecture.classes) == (row.stem_stride, len(row.class_names))
        size = keras_cnv2.sizes.SIZES[row.size]
        assert (architecture.depths, architecture.dims) == (size.depths, size.dims)

    def test_card_has_its_figures(self, row):
        card = (bundled.WEIGHTS / f"{row.name}.md").read_text()
        assert f"{row.top1:.2f} %" in card
        assert row.licence in card
        assert row.sha256 in card
        for title in ("## Data", "## Recipe", "## Figures", "## Licence"):
            assert title in card


@pytest.fixture
def no_download(monkeypatch):
    def download(row):
        raise AssertionError(f"asked for {row.name}")

    monkeypatch.setattr(source, "download", download)


def test_predicts_without_a_network(no_download, tmp_path, capsys):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), "uint8")
    tf.io.write_file(str(tmp_path / "picture.png"), tf.io.encode_png(pixels))
    assert main(["predict", str(tmp_path / "picture.png"), "--weights", "cifar10", "--top", "10"]) == 0
    out = capsys.readouterr().out
    assert {line.split()[-1] for line in out.splitlines()[1:]} == {*find_checkpoint("cifar10").class_names}
    assert sum(map(float, re.findall(r"([\d.]+) %", out))) == pytest.approx(100, abs=0.6)


def test_as_an_argument(no_download):
    """Classes and stem are those of the weights."""
    model = keras_cnv2.ConvNeXtV2Atto(weights="cifar10")
    assert (model.classes, model.stem_stride) == (10, find_checkpoint("cifar10").stem_stride)
    assert (model.class_names[3], model.image_size, model.resize) == ("cat", 32, "squash")
    backbone = keras_cnv2.ConvNeXtV2Backbone("atto", weights="cifar10")
    np.testing.assert_array_equal(backbone.get_layer("stem_conv").kernel, model.get_layer("stem_conv").kernel)


def test_arguments_that_are_not_those_of_the_weights(no_download):
    path = bundled.checkout_file(find_checkpoint("cifar10"))
    for weights in ("cifar10", path):
        for build in (keras_cnv2.ConvNeXtV2Atto, functools.partial(keras_cnv2.ConvNeXtV2Backbone, "atto")):
            with pytest.raises(keras_cnv2.CheckpointError, match=r"leave stem_stride out.*Received: stem_stride=4"):
                build(weights=weights, stem_stride=4)
    with pytest.raises(keras_cnv2.CheckpointError, match="head has 10 classes, the model's head has 1000"):
        keras_cnv2.ConvNeXtV2Atto(weights="cifar10", classes=1000)
    own = keras_cnv2.ConvNeXtV2Atto(weights="cifar10", classes=7)
    assert own.get_layer("head").kernel.shape == (320, 7)
    assert own.class_names is None


def test_changed_file(no_download, tmp_path, monkeypatch):
    row = find_checkpoint("cifar10")
    (tmp_path / f"{row.name}.safetensors").write_bytes(b"others")
    monkeypatch.setattr(bundled, "WEIGHTS", tmp_path)
    with pytest.raises(
        keras_cnv2.CheckpointError, match=r"not the published convnextv2_atto\.cifar10.*Received: .*wit"
    ):
        keras_cnv2.ConvNeXtV2Atto(weights="cifar10")


def test_without_a_checkout_they_are_downloaded(tmp_path, monkeypatch):
    path, row = bundled.checkout_file(find_checkpoint("cifar10")), find_checkpoint("cifar10")
    monkeypatch.setattr(bundled, "WEIGHTS", tmp_path / "site-packages")
    monkeypatch.setattr(source, "download", lambda row: Download(path, "a" * 40, row.sha256))
    assert source.fetch_weights("cifar10").path == path
    origin = {"repository": row.repository, "file": row.file, "commit": "a" * 40, "sha256": row.sha256}
    assert source.fetch_weights("cifar10").metadata == {**row.metadata, "pretrained": origin}


def test_official_ones_are_not_looked_for_here(tmp_path, monkeypatch):
    row = find_checkpoint("fcmae", "atto")
    monkeypatch.setattr(bundled, "WEIGHTS", tmp_path)
    (tmp_path / f"{row.name}.safetensors").write_bytes(b"others")
    assert bundled.checkout_file(row) is None


@pytest.mark.slow
def test_pytorch_has_the_same_logits():
    """In transformers' model, from the names that `state_dict` gives."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = keras_cnv2.ConvNeXtV2Atto(weights="cifar10", classifier_activation=None)
    config = transformers.ConvNextV2Config(
        num_channels=3, patch_size=2, hidden_sizes=[*model.dims], depths=[*model.depths], num_labels=10
    )
    theirs = transformers.ConvNextV2ForImageClassification(config).eval()
    theirs.convnextv2.layernorm.eps = 1e-6
    theirs.load_state_dict({k: torch.tensor(v) for k, v in keras_cnv2.state_dict(model, "transformers").items()})
    images = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype("float32")
    normalised = np.asarray(keras_cnv2.preprocess_input(images)).transpose(0, 3, 1, 2)
    with torch.no_grad():
        expected = theirs(torch.tensor(np.ascontiguousarray(normalised))).logits.numpy()
    np.testing.assert_allclose(np.asarray(model(images)), expected, rtol=1e-4, atol=1e-4)
