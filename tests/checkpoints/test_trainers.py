"""Checkpoints as trainers write them: prefixes, moving averages, file names, and the names of other libraries."""

import keras
import numpy as np
import pytest

import keras_cnv2
from keras_cnv2 import CheckpointError
from tests.checkpoints.samples import SMALL, backbone, classifier, snapshot, unchanged

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def source():
    return classifier()


@pytest.fixture(scope="module")
def other():
    return classifier()


def tensors(model, naming="timm"):
    return {name: torch.from_numpy(array) for name, array in keras_cnv2.state_dict(model, naming).items()}


def renamed(state, rename):
    return {rename(name): tensor for name, tensor in state.items()}


def assert_same(model, source):
    for ours, theirs in zip(snapshot(model), snapshot(source), strict=True):
        np.testing.assert_array_equal(ours, theirs)


PREFIXES = ("module.", "_orig_mod.module.", "model.backbone.", "model.encoder.", "student.net.")


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("naming", ["official", "timm", "transformers"])
def test_shared_prefix(naming, prefix, source):
    model = classifier()
    keras_cnv2.load_checkpoint(model, renamed(tensors(source, naming), lambda name: prefix + name))
    assert_same(model, source)


def test_pretraining_with_a_prefix():
    """The official prefix "encoder." stays, where it tells the encoder from the decoder."""
    source = keras_cnv2.FCMAE(backbone(), image_size=64, decoder_dim=8)
    model = keras_cnv2.FCMAE(backbone(), image_size=64, decoder_dim=8)
    keras_cnv2.load_checkpoint(model, renamed(keras_cnv2.state_dict(source), lambda name: f"module.{name}"))
    assert_same(model.backbone, source.backbone)


def test_errors_name_the_tensors_as_the_file_does(source):
    state = renamed(tensors(source), lambda name: f"module.{name}")
    state["module.extra"] = state.pop("module.head.fc.bias")
    with pytest.raises(CheckpointError, match=r"left over: module\.extra\s+missing: head\.fc\.bias"):
        keras_cnv2.load_checkpoint(classifier(), state)


def test_counter_of_an_average(source):
    """`torch.optim.swa_utils.AveragedModel` counts the models that it averages."""
    model = classifier()
    state = renamed(tensors(source), lambda name: f"module.{name}")
    keras_cnv2.load_checkpoint(model, {"n_averaged": torch.tensor(3), **state})
    assert_same(model, source)


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema"])
def test_the_average_by_default(key, source, other, tmp_path, caplog):
    path, model = tmp_path / "last.pth.tar", classifier()
    raw = "state_dict" if key == "state_dict_ema" else "model"
    torch.save({"epoch": 3, raw: tensors(other), key: tensors(source)}, path)
    keras_cnv2.load_checkpoint(model, path)
    assert_same(model, source)
    assert f"the average, '{key}', is taken; last.pth.tar#{raw} selects the others" in caplog.text
    caplog.clear()
    keras_cnv2.load_checkpoint(model, f"{path}#{raw}")
    assert_same(model, other)
    assert caplog.messages == []
    assert_same(classifier(weights=f"{path}#{key}"), source)
    with pytest.raises(CheckpointError, match=r"no state dict, under 'ema'\. Received: .*'epoch'"):
        keras_cnv2.load_checkpoint(model, f"{path}#ema")


@pytest.mark.parametrize("contents", ["average alone", "no average"])
def test_one_kind_of_weights(contents, source, tmp_path, caplog):
    """timm writes `None` for an average that there is not."""
    path, state = tmp_path / "last.ckpt", tensors(source)
    is_average = contents == "average alone"
    torch.save({"state_dict_ema": state} if is_average else {"state_dict": state, "state_dict_ema": None}, path)
    model = classifier()
    keras_cnv2.load_checkpoint(model, path)
    assert_same(model, source)
    assert caplog.messages == []


def test_features_only(source):
    """The names of timm's `create_model(..., features_only=True)`."""
    state = {k: v for k, v in tensors(source).items() if not k.startswith("head.")}
    state = renamed(state, lambda name: name.replace("stages.", "stages_", 1).replace("stem.", "stem_"))
    assert "stages_0.blocks.0.conv_dw.weight" in state
    model = backbone()
    keras_cnv2.load_checkpoint(model, state)
    expected = backbone()
    keras_cnv2.load_checkpoint(expected, tensors(source))
    assert_same(model, expected)


MM = {"dwconv": "depthwise_conv", "pwconv1": "pointwise_conv1", "pwconv2": "pointwise_conv2"}


def as_mmpretrain(state, linear=True):
    """Official tensors in mmpretrain's names and layouts."""
    found = {}
    for name, tensor in state.items():
        parts = name.split(".")
        if parts[-2] == "grn":
            tensor = tensor.reshape(-1)
        if parts[-2].startswith("pwconv") and parts[-1] == "weight" and not linear:
            tensor = tensor[:, :, None, None]
        if parts[0] in ("head", "norm"):
            name = {"head": "head.fc", "norm": "backbone.norm3"}[parts[0]] + f".{parts[1]}"
        else:
            name = ".".join(["backbone", *(MM.get(part, part) for part in parts)])
        found[name] = tensor
    return found


@pytest.mark.parametrize("linear", [True, False])
def test_mmpretrain(linear, source):
    model = classifier()
    keras_cnv2.load_checkpoint(model, as_mmpretrain(tensors(source, "official"), linear))
    assert_same(model, source)


def test_mmdetection(caplog):
    """A whole detector: its backbone is taken, with the norms of the levels; what is around it is named."""
    source = backbone(pyramid_norms=True)
    for weight in source.weights:
        weight.assign(keras.random.normal(weight.shape))
    state = as_mmpretrain(tensors(source, "official"))
    others = {"neck.lateral_convs.0.conv.weight": torch.zeros(4, 8, 1, 1), "rpn_head.rpn_cls.bias": torch.zeros(3)}
    model = backbone(pyramid_norms=True)
    with caplog.at_level("INFO"):
        keras_cnv2.load_checkpoint(model, {**state, **others})
    assert_same(model, source)
    assert "left out: neck.lateral_convs.0.conv, rpn_head.rpn_cls" in caplog.text


def test_gaps_in_a_detectors_backbone(source):
    state = as_mmpretrain(tensors(backbone(), "official"))
    del state["backbone.stages.0.0.norm.bias"]
    model = backbone()
    before = snapshot(model)
    with pytest.raises(CheckpointError, match=r"missing: stages\.0\.0\.norm\.bias"):
        keras_cnv2.load_checkpoint(model, {**state, "neck.bias": torch.zeros(3)})
    assert unchanged(model, before)
    assert SMALL["depths"][0] == 1  # the name above is one of this model's
