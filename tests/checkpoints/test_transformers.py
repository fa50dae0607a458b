"""Our weights in the PyTorch ConvNeXt V2 of the transformers library, an implementation that is not ours."""

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
