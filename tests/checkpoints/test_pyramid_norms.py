"""The norms of a backbone's levels: a part that checkpoints may have or lack as a whole."""

import logging

import numpy as np
import pytest

import keras_cnv2
from keras_cnv2.restore import restore_model
from tests.checkpoints.samples import FILES, SMALL, backbone, classifier, snapshot, unchanged
from tests.golden import rule

STAGES = ["stage1", "stage2", "stage3", "stage4"]


def with_values(model):
    shapes = {name: value.shape for name, value in keras_cnv2.state_dict(model).items()}
    keras_cnv2.load_checkpoint(model, {name: rule.tensor(7, name, shape) for name, shape in shapes.items()})
    return model


@pytest.fixture
def model():
    return with_values(backbone(pyramid_norms=True, include_preprocessing=False))


@pytest.mark.backends
@pytest.mark.parametrize("naming", ["official", "transformers"])
def test_there_and_back(model, naming, tmp_path):
    weights = keras_cnv2.state_dict(model, naming)
    names = {name.rpartition(".")[0] for name in weights if "norms" in name or name.startswith("norm")}
    assert (
        names
        == {
            "official": {f"norm{stage}" for stage in range(4)},
            "transformers": {f"hidden_states_norms.{stage}" for stage in STAGES},
        }[naming]
    )
    keras_cnv2.save_checkpoint(model, tmp_path / "it.safetensors", naming)
    again = backbone(pyramid_norms=True)
    keras_cnv2.load_checkpoint(again, tmp_path / "it.safetensors")
    assert unchanged(again, snapshot(model))
    assert unchanged(restore_model(str(tmp_path / "it.safetensors")), snapshot(model))


def test_keras_file(model, tmp_path):
    model.save(tmp_path / "it.keras")
    again = backbone(pyramid_norms=True)
    keras_cnv2.load_checkpoint(again, tmp_path / "it.keras")
    assert unchanged(again, snapshot(model))


def test_timm_has_none(model, caplog):
    with caplog.at_level(logging.WARNING, "keras_cnv2"):
        weights = keras_cnv2.state_dict(model, "timm")
    assert "left out (no names in timm): pyramid_norms" in caplog.text
    assert len(weights) == len(model.weights) - 8


@pytest.mark.parametrize("file", ["official_dense.pt", "timm_fcmae.safetensors", "transformers.safetensors"])
def test_published_weights_have_none(file, caplog):
    model, plain = backbone(pyramid_norms=True), backbone()
    with caplog.at_level(logging.WARNING, "keras_cnv2"):
        keras_cnv2.load_checkpoint(model, FILES / file)
    assert caplog.text.count("keeps its initial values: pyramid_norms") == 1
    keras_cnv2.load_checkpoint(plain, FILES / file)
    values = {weight.path: weight.numpy() for weight in model.weights}
    for weight in plain.weights:
        np.testing.assert_array_equal(values.pop(weight.path), weight.numpy())
    assert sorted(values) == [f"pyramid_norm_{stage}/{name}" for stage in range(4) for name in ("beta", "gamma")]
    for path, value in values.items():
        assert (value == path.endswith("gamma")).all()


@pytest.mark.parametrize("other", [backbone, classifier])
def test_left_out_of_models_without(model, other, caplog):
    other = other()
    with caplog.at_level(logging.INFO, "keras_cnv2"):
        keras_cnv2.load_checkpoint(other, keras_cnv2.state_dict(model))
    assert "in the checkpoint, left out: pyramid_norms" in caplog.text
    np.testing.assert_array_equal(other.get_layer("stem_conv").kernel, model.get_layer("stem_conv").kernel)


def test_some_are_not_all(model):
    weights = keras_cnv2.state_dict(model)
    del weights["norm2.bias"]
    again = backbone(pyramid_norms=True)
    before = snapshot(again)
    with pytest.raises(keras_cnv2.CheckpointError, match="missing: norm2.bias"):
        keras_cnv2.load_checkpoint(again, weights)
    assert unchanged(again, before)


@pytest.mark.slow  # to import both libraries; tests/models/test_backbone.py has the numbers
def test_features_are_those_of_transformers(model):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.ConvNextV2Config(
        depths=[*SMALL["depths"]], hidden_sizes=[*SMALL["dims"]], out_features=STAGES
    )
    theirs = transformers.ConvNextV2Backbone(config).eval()
    ours = {name: torch.from_numpy(value) for name, value in keras_cnv2.state_dict(model, "transformers").items()}
    theirs.load_state_dict(ours, strict=True)
    images = rule.image(7, 2, 75, 101)  # sides that no stride divides
    with torch.no_grad():
        expected = theirs(torch.from_numpy(images.transpose(0, 3, 1, 2))).feature_maps
    for received, level in zip(model(images).values(), expected, strict=True):
        np.testing.assert_allclose(received, level.numpy().transpose(0, 2, 3, 1), atol=1e-4)
