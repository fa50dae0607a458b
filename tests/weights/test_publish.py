import hashlib
import json
import shutil

import numpy as np
import pytest

import keras_cnv2
from weights import publish

SMALL = {"stem_stride": 2, "input_shape": (32, 32, 3), "classes": 2}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    path = tmp_path_factory.mktemp("trained") / "classifier.keras"
    keras_cnv2.ConvNeXtV2Atto(**SMALL, class_names=["cat", "dog"], resize="squash").save(path)
    return path


@pytest.fixture
def runs(classifier, tmp_path):
    """The folders of a pre-training and a fine-tuning, as far as publishing reads them."""
    system = {"versions": {"keras": "3.15"}, "system": {"machine": "two cores"}}
    common = {
        "data": "here.npz",
        "weights": "somewhere",
        "grn": True,
        "frozen": False,
        "clip_norm": None,
        "seed": 0,
        "betas": [0.9, 0.95],
        **system,
    }
    metrics = {"seconds": 120.0, "top1": 0.8125, "top5": 0.99, "images": 8000, "classes": {"cat": 0.5, "dog": 1.0}}
    for kind in ("Pretraining", "Finetuning"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "config.json").write_text(json.dumps({"kind": kind, **common}))
        (tmp_path / kind / "metrics.json").write_text(json.dumps(metrics))
    shutil.copy(classifier, tmp_path / "Finetuning" / "classifier.keras")
    return tmp_path / "Pretraining", tmp_path / "Finetuning"


def test_file_and_card(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(publish, "FOLDER", tmp_path)
    publish.main([*map(str, runs), "--tag", "cifar10"])
    path = tmp_path / "convnextv2_atto.cifar10.safetensors"
    again = keras_cnv2.ConvNeXtV2Atto(**SMALL, weights=path)
    expected = keras_cnv2.ConvNeXtV2Atto(**SMALL, weights=runs[1] / "classifier.keras")
    for ours, theirs in zip(again.get_weights(), expected.get_weights()):
        np.testing.assert_array_equal(ours, theirs)
    assert (again.class_names, again.image_size, again.resize) == (("cat", "dog"), 32, "squash")

    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    out = capsys.readouterr().out
    assert f"sha256 = '{digest}'" in out
    assert "top1 = 81.25" in out
    card = path.with_suffix(".md").read_text()
    for text in (
        digest,
        "Top-1 81.25 %",
        "| dog | 100.0% |",
        "pre-trained with FCMAE, then fine-tuned",
        "0.9, 0.95",
        "seed | 0",
    ):
        assert text in card
    for untold in ("here.npz", "somewhere", "frozen", "clip_norm", "{", "nan"):
        assert untold not in card


def test_unfinished_run(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "FOLDER", tmp_path)
    (runs[1] / "metrics.json").unlink()
    with pytest.raises(FileNotFoundError):
        publish.publish(runs, "cifar10")
    assert not [*tmp_path.glob("*.safetensors")]


def test_neither_file_nor_card_without_the_other(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "FOLDER", tmp_path)
    config = json.loads((runs[0] / "config.json").read_text())
    (runs[0] / "config.json").write_text(json.dumps({**config, "kind": "Segmentation"}))
    with pytest.raises(KeyError, match="Segmentation"):
        publish.publish(runs, "cifar10")
    assert not [*tmp_path.glob("convnextv2*")]


def test_size_that_is_none(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "FOLDER", tmp_path)
    model = keras_cnv2.ConvNeXtV2((1, 1, 1, 1), (4, 6, 8, 10), **SMALL)
    model.save(runs[1] / "classifier.keras")
    with pytest.raises(ValueError, match=r"Only the eight sizes can be published. Received: depths=\(1, 1, 1, 1\)"):
        publish.publish(runs, "cifar10")
    assert not [*tmp_path.glob("convnextv2*")]
