import json
import zlib

import keras
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

import keras_cnv2
from keras_cnv2.checkpoints.described import CHECKSUM, CHECKSUMS, DESCRIPTION, description
from keras_cnv2.checkpoints.metadata import KEY
from keras_cnv2.errors import CheckpointError
from keras_cnv2.restore import restore_model


@pytest.fixture(scope="module")
def model():
    return keras_cnv2.ConvNeXtV2(
        depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), input_shape=(32, 32, 3), classes=2, class_names=["a", "b"]
    )


def write(path, model, **changed):
    """Weights that are one more than the model's, beside those that are the model's and do not count."""
    plain = [keras.ops.convert_to_numpy(weight) for weight in model.weights]
    tensors = {f"model/{number}": array for number, array in enumerate(plain)}
    tensors |= {f"optimizer/{number}": array + 1 for number, array in enumerate(plain)}
    weights = {weight.path: f"optimizer/{number}" for number, weight in enumerate(model.weights)}
    content = {**description(keras.saving.serialize_keras_object(model), weights), **changed}
    save_file(tensors, path, {KEY: json.dumps({"other": 1, DESCRIPTION: content})})
    return path


def test_restored(model, tmp_path):
    path = write(tmp_path / "a.safetensors", model)
    restored = restore_model(path)
    for one, two in zip(model.get_weights(), restored.get_weights(), strict=True):
        np.testing.assert_array_equal(one + 1, two)
    assert restored.class_names == ("a", "b")
    encoder = keras_cnv2.ConvNeXtV2Backbone(depths=model.depths, dims=model.dims, input_shape=(64, 64, 3), weights=path)
    np.testing.assert_array_equal(encoder.get_weights()[0], restored.get_weights()[0])


def with_checksums(path, model, changed=None):
    """Like `write`, as training does it; `changed` is the name of an array that is not what it was, or "text"."""
    write(path, model)
    with safe_open(path, "np") as file:
        content, tensors = json.loads(file.metadata()[KEY]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    checksums = {name: zlib.crc32(array.tobytes()) for name, array in tensors.items()}
    text = json.dumps({**content, CHECKSUMS: checksums})
    checksum = str(zlib.crc32(text.encode()))
    if changed == "text":
        text = text.replace('["a", "b"]', '["a", "c"]')
    elif changed:
        tensors[changed] = tensors[changed] * 2
    save_file(tensors, path, {KEY: text, CHECKSUM: checksum})
    return path


@pytest.mark.parametrize("changed", ["optimizer/0", "text"])
def test_changed_since_it_was_written(model, tmp_path, changed):
    """As training sees it: a flipped bit would be a wrong answer that nobody notices."""
    with pytest.raises(CheckpointError, match="ha(s|ve) changed since"):
        restore_model(with_checksums(tmp_path / "a.safetensors", model, changed))


def test_what_does_not_count_may_have_changed(model, tmp_path):
    for changed in (None, "model/0"):
        restored = restore_model(with_checksums(tmp_path / "a.safetensors", model, changed))
        np.testing.assert_array_equal(restored.get_weights()[0], model.get_weights()[0] + 1)


@pytest.mark.parametrize(
    "changed",
    [
        {"config": None},
        {"config": 3},
        {"config": {}},
        {"config": {"config": []}},
        {"weights": []},
        {"weights": {"stem_conv/kernel": "gone"}},
        {"weights": {"stem_conv/kernel": ["model/0"]}},
        {"weights": {"stem_conv/kernel": "model/0"}},
        {"weights": {}},
    ],
)
def test_senseless_descriptions(model, tmp_path, changed):
    with pytest.raises(CheckpointError, match=r"a\.safetensors: |names of a ConvNeXt V2"):
        restore_model(write(tmp_path / "a.safetensors", model, **changed))
