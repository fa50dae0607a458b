"""The sample files: every good one gives the published model's numbers, every bad one an error and nothing else."""

import logging

import keras
import numpy as np
import pytest

import keras_cnv2
from keras_cnv2.checkpoints.read import open_checkpoint
from tests.checkpoints.samples import (
    CLASSIFIERS,
    ENCODERS,
    FCMAES,
    FILES,
    SEED,
    backbone,
    classifier,
    fcmae,
    snapshot,
    unchanged,
)
from tests.golden import rule

BAD = {
    "malicious.pt": r"malicious\.pt: the file asks for posix\.system.*nothing of it was run",
    "truncated.pt": r"truncated\.pt: the weights file is damaged, incomplete",
    "missing_tensor.safetensors": r"1 misfits:\s+missing: stages\.2\.blocks\.1\.mlp\.grn\.weight$",
    "wrong_shape.safetensors": r"1 misfits:\s+shape: stem\.0\.weight is \(8, 3, 5, 5\), expected \(8, 3, 4, 4\)$",
    "unexpected_tensor.safetensors": r"1 misfits:\s+left over: stages\.0\.blocks\.7\.mlp\.fc1\.weight$",
}


def test_every_sample_is_tested():
    assert {path.name for path in FILES.iterdir()} == {*CLASSIFIERS, *ENCODERS, *FCMAES, *BAD, "expected.npz"}


def assert_follows_the_rule(model):
    """The model has, bit for bit, the weights that all samples were made with."""
    for name, tensor in keras_cnv2.state_dict(model).items():
        # The samples of FCMAE's encoder were made under the dense names.
        expected = rule.tensor(SEED, name.removeprefix("encoder."), tensor.shape)
        np.testing.assert_array_equal(tensor, expected, err_msg=name)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.backends if name == CLASSIFIERS[0] else ()) for name in CLASSIFIERS]
)
def test_classifier(name):
    model = classifier(weights=FILES / name, include_preprocessing=False)
    expected = np.load(FILES / "expected.npz")
    size = expected["size"]
    logits = model(rule.image(int(expected["image_seed"]), int(expected["batch"]), size, size))
    tolerance = 1e-5 if keras.backend.backend() == "tensorflow" else 1e-4
    np.testing.assert_allclose(keras.ops.convert_to_numpy(logits), expected["logits"], atol=tolerance)
    assert_follows_the_rule(model)


@pytest.mark.parametrize("name", [CLASSIFIERS[0], *ENCODERS, *FCMAES])
def test_features(name):
    """The encoder of a file gives the features under the published logits; for the other files, the test above."""
    expected = np.load(FILES / "expected.npz")
    images = rule.image(int(expected["image_seed"]), int(expected["batch"]), 96, 96)
    model = backbone(weights=FILES / name, include_preprocessing=False)
    assert_follows_the_rule(model)
    # The head of the samples, by hand: what the encoder's features must lead to.
    pooled = np.asarray(model(images)).mean((1, 2))
    normed = (pooled - pooled.mean(-1, keepdims=True)) / np.sqrt(pooled.var(-1, keepdims=True) + 1e-6)
    normed = normed * rule.tensor(SEED, "norm.weight", (32,)) + rule.tensor(SEED, "norm.bias", (32,))
    logits = normed @ rule.tensor(SEED, "head.weight", (10, 32)).T + rule.tensor(SEED, "head.bias", (10,))
    np.testing.assert_allclose(logits, expected["logits"], atol=1e-5)


@pytest.mark.backends
def test_sparse_fcmae_restores_the_decoder(caplog):
    model = fcmae()
    keras_cnv2.load_checkpoint(model, FILES / "official_fcmae_sparse.pt")
    assert_follows_the_rule(model)
    assert caplog.messages == []


@pytest.mark.parametrize("name", [*ENCODERS, CLASSIFIERS[-1]])
def test_encoder_into_fcmae(name, caplog):
    model = fcmae()
    keras_cnv2.load_checkpoint(model, FILES / name)
    assert_follows_the_rule(model.backbone)
    assert caplog.messages == ["fcmae: not taken from the checkpoint, keeps its initial values: decoder"]


@pytest.mark.parametrize("name", [*ENCODERS, *FCMAES])
def test_encoder_into_a_classifier(name, caplog):
    caplog.set_level(logging.INFO)
    classifier(weights=FILES / name, name="mine")
    messages = ["mine: not taken from the checkpoint, keeps its initial values: head, norm"]
    messages += ["mine: in the checkpoint, left out: decoder"] if name in FCMAES else []
    assert caplog.messages == messages


@pytest.mark.parametrize("name", BAD)
def test_bad_file(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = classifier()
    before = snapshot(model)
    with pytest.raises(keras_cnv2.CheckpointError, match=BAD[name]):
        keras_cnv2.load_checkpoint(model, FILES / name)
    assert unchanged(model, before)
    if name == "malicious.pt":
        assert b"touch PWNED" in (FILES / name).read_bytes()  # the command that it would run here
    assert [*tmp_path.iterdir()] == []


def test_bad_file_as_the_argument():
    with pytest.raises(keras_cnv2.CheckpointError, match=BAD["truncated.pt"]):
        classifier(weights=FILES / "truncated.pt")


def test_own_naming_of_fcmae():
    source, again, target = fcmae(), fcmae(), classifier()
    keras_cnv2.load_checkpoint(source, FILES / "official_fcmae_sparse.pt")
    tensors = keras_cnv2.state_dict(source)
    keras_cnv2.load_checkpoint(again, tensors)
    assert_follows_the_rule(again)
    keras_cnv2.load_checkpoint(target, tensors)
    np.testing.assert_array_equal(target.get_weights()[0], source.backbone.get_weights()[0])


class TestNamings:
    @pytest.fixture(scope="class")
    def source(self):
        return classifier(weights=FILES / "official_dense.pt")

    @pytest.mark.parametrize(
        ("naming", "sample"),
        [
            ("official", "official_dense.pt"),
            ("timm", "timm_linear.safetensors"),
            ("transformers", "transformers.safetensors"),
        ],
    )
    def test_is_what_others_write_and_is_read_bit_by_bit(self, source, naming, sample):
        ours = keras_cnv2.state_dict(source, naming)
        with open_checkpoint(FILES / sample) as contents:
            theirs = {name: np.asarray(tensor) for name, tensor in contents.tensors.items()}
        assert ours.keys() == theirs.keys()
        for name, tensor in theirs.items():
            assert ours[name].shape == tensor.shape
            np.testing.assert_array_equal(ours[name], tensor)
        target = classifier()
        keras_cnv2.load_checkpoint(target, ours)
        assert unchanged(target, snapshot(source))

    @pytest.mark.parametrize(("size", "shape"), [("Atto", (160, 40, 1, 1)), ("Tiny", (384, 96))])
    def test_timm_keeps_convolutions_in_the_small_sizes(self, size, shape):
        model = getattr(keras_cnv2, f"ConvNeXtV2{size}")()
        assert keras_cnv2.state_dict(model, "timm")["stages.0.blocks.0.mlp.fc1.weight"].shape == shape

    @pytest.mark.parametrize("naming", ["timm", "transformers"])
    def test_there_is_no_decoder_elsewhere(self, naming, caplog):
        model = fcmae()
        tensors = keras_cnv2.state_dict(model, naming)
        assert caplog.messages == [f"fcmae: left out (no names in {naming}): decoder"]
        target = backbone()
        keras_cnv2.load_checkpoint(target, tensors)
        assert unchanged(target, snapshot(model.backbone))


def test_transformers_without_a_head():
    """As its ConvNextV2Model names them."""
    model = classifier(weights=FILES / "transformers.safetensors", include_top=False, pooling="avg")
    tensors = keras_cnv2.state_dict(model, "transformers")
    bare = {name.removeprefix("convnextv2."): tensor for name, tensor in tensors.items()}
    assert "encoder.stages.0.layers.0.grn.weight" in bare
    target = classifier(include_top=False, pooling="avg")
    keras_cnv2.load_checkpoint(target, bare)
    assert unchanged(target, snapshot(model))


def test_names_that_are_no_strings():
    with pytest.raises(keras_cnv2.CheckpointError, match="not have the names of a ConvNeXt V2"):
        keras_cnv2.load_checkpoint(backbone(), {**keras_cnv2.state_dict(backbone()), 3: np.zeros(3)})


def test_unknown_names():
    with pytest.raises(keras_cnv2.CheckpointError, match=r"any known naming.*2 tensors called \['a', 'b'\]"):
        keras_cnv2.load_checkpoint(backbone(), {"a": np.zeros(3), "b": np.zeros(3)})


def test_first_version_of_the_network():
    """ConvNeXt V1: the names of V2 but for layer scale in place of GRN."""
    model = backbone()
    tensors = keras_cnv2.state_dict(model)
    tensors = {name: tensor for name, tensor in tensors.items() if ".grn." not in name}
    tensors["stages.0.0.gamma"] = np.zeros(8, "float32")
    with pytest.raises(keras_cnv2.CheckpointError, match=r"left over: stages\.0\.0\.gamma"):
        keras_cnv2.load_checkpoint(model, tensors)
