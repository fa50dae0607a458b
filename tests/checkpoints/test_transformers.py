"""Our weights in the PyTorch ConvNeXt V2 of the transformers library, an implementation that is not ours."""

import keras
import numpy as np
import pytest

import keras_cnv2
from tests.golden import rule

pytestmark = pytest.mark.slow

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def pytorch_model(depths, dims, classes):
    config = transformers.ConvNextV2Config(
        depths=depths,
        hidden_sizes=dims,
        num_labels=classes,
        layer_norm_eps=1e-6,  # of the last norm; the library's own 1e-12 is not the original's
    )
    return transformers.ConvNextV2ForImageClassification(config).eval()


@pytest.mark.parametrize("size", ["small", "atto", "tiny"])
@pytest.mark.parametrize("way", ["state_dict", "file"])
def test_logits(size, way, tmp_path):
    arguments = {"classifier_activation": None, "include_preprocessing": False}
    if size == "small":
        model = keras_cnv2.ConvNeXtV2((1, 1, 2, 1), (8, 16, 24, 32), classes=10, **arguments)
    else:
        model = getattr(keras_cnv2, f"ConvNeXtV2{size.capitalize()}")(**arguments)
    shapes = {name: value.shape for name, value in keras_cnv2.state_dict(model).items()}
    keras_cnv2.load_checkpoint(model, {name: rule.tensor(7, name, shape) for name, shape in shapes.items()})

    theirs = pytorch_model(model.depths, model.dims, model.classes)
    if way == "state_dict":
        tensors = {k: torch.from_numpy(v) for k, v in keras_cnv2.state_dict(model, "transformers").items()}
        theirs.load_state_dict(tensors, strict=True)
    else:
        keras_cnv2.save_checkpoint(model, tmp_path / "model.safetensors", "transformers")
        theirs.config.save_pretrained(tmp_path)
        theirs = transformers.ConvNextV2ForImageClassification.from_pretrained(tmp_path).eval()

    images = rule.image(7, 2, 96, 128)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(images.transpose(0, 3, 1, 2))).logits.numpy()
    np.testing.assert_allclose(np.asarray(model(images)), expected, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_back_from_transformers(dtype):
    theirs = pytorch_model((1, 1, 2, 1), (8, 16, 24, 32), 10).to(getattr(torch, dtype))
    model = keras_cnv2.ConvNeXtV2((1, 1, 2, 1), (8, 16, 24, 32), classes=10)
    keras_cnv2.load_checkpoint(model, theirs.state_dict())  # PyTorch's tensors as they are
    back = keras_cnv2.state_dict(model, "transformers")
    expected = {name: tensor.float().numpy() for name, tensor in theirs.state_dict().items()}
    assert back.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(back[name], tensor)


def probabilities(logits):
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


NAMES = ("cat", "dog", "owl")
MEAN, STD = (0.5, 0.4, 0.3), (0.5, 0.25, 0.125)


def strong(theirs):
    """Sets weights that are far from those of a new model, in which GRN does nothing."""
    torch.manual_seed(0)
    for weight in theirs.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return theirs.eval()


def assert_is_theirs(folder, theirs, epsilon):
    """Asserts that a folder becomes the model of which it is, preprocessing included."""
    model = keras_cnv2.from_pretrained(folder)
    assert (model.class_names, model.image_size, model.resize) == (NAMES, 64, 0.9)
    assert model.norm_epsilon == epsilon
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype("float32")
    normalised = ((images / 255 - MEAN) / STD).astype("float32").transpose(0, 3, 1, 2)
    with torch.no_grad():
        outputs = theirs(torch.from_numpy(normalised))
    expected = getattr(outputs, "logits", outputs).numpy()
    np.testing.assert_allclose(np.asarray(model(images)), probabilities(expected), atol=1e-4)


@pytest.mark.parametrize("shard", ["1GB", "20KB"])
def test_folder_that_transformers_writes(shard, tmp_path):
    config = transformers.ConvNextV2Config(
        depths=[1, 1, 2, 1],
        hidden_sizes=[8, 16, 24, 32],
        id2label=dict(enumerate(NAMES)),
        label2id={name: number for number, name in enumerate(NAMES)},
    )
    theirs = strong(transformers.ConvNextV2ForImageClassification(config))
    theirs.save_pretrained(tmp_path, max_shard_size=shard)
    preprocessor = {"size": {"shortest_edge": 64}, "crop_pct": 0.9, "image_mean": [*MEAN], "image_std": [*STD]}
    transformers.ConvNextImageProcessor(**preprocessor).save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard == "20KB")
    assert_is_theirs(tmp_path, theirs, 1e-12)


def test_folder_that_timm_writes(tmp_path):
    timm = pytest.importorskip("timm")
    architecture = {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}
    pictures = {"mean": MEAN, "std": STD, "input_size": (3, 64, 64), "crop_pct": 0.9, "crop_mode": "center"}
    theirs = strong(
        timm.create_model("convnextv2_atto", num_classes=3, pretrained_cfg_overlay=pictures, **architecture)
    )
    timm.models.save_for_hf(
        theirs,
        tmp_path,
        model_config={"label_names": [*NAMES]},
        model_args={name: [*values] for name, values in architecture.items()},
        safe_serialization=True,
    )
    assert_is_theirs(tmp_path, theirs, 1e-6)


def test_features_only_of_timm():
    timm = pytest.importorskip("timm")
    architecture = {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}
    theirs = strong(timm.create_model("convnextv2_atto", features_only=True, **architecture))
    model = keras_cnv2.ConvNeXtV2Backbone(**architecture, include_preprocessing=False)
    keras_cnv2.load_checkpoint(model, theirs.state_dict())
    images = rule.image(7, 2, 64, 64)
    with torch.no_grad():
        expected = [level.numpy() for level in theirs(torch.from_numpy(images.transpose(0, 3, 1, 2)))]
    levels = keras.Model(model.input, [*model.pyramid_outputs.values()])(images)
    for ours, level in zip(levels, expected, strict=True):
        np.testing.assert_allclose(np.transpose(ours, (0, 3, 1, 2)), level, rtol=1e-4, atol=1e-4 * np.abs(level).max())
