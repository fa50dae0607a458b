"""What docs/keras_hub.md says is so."""

import re
from pathlib import Path

import keras_hub
import numpy as np
import pytest

import keras_cnv2

PAGE = (Path(__file__).parents[2] / "docs" / "keras_hub.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)

# What makes the examples small, and works without a network.
SMALL = {
    'keras_cnv2.ConvNeXtV2Tiny(weights="fcmae_ft_in22k_in1k")': "keras_cnv2.ConvNeXtV2(*SIZE, classes=7)",
    '"tiny", weights="fcmae_ft_in22k_in1k"': "None, *SIZE",
    "hf://owner/": "",
    "num_classes=20": "num_classes=20, pre_logits_num_conv_layers=1",
    "512": "128",
}


@pytest.mark.slow
def test_page(tmp_path, monkeypatch, eagerly):
    monkeypatch.chdir(tmp_path)
    sent = []
    monkeypatch.setattr(keras_hub, "upload_preset", lambda *place: sent.append(place))
    images = np.random.default_rng(0).integers(0, 256, (2, 40, 60, 3), "uint8")
    names = {"SIZE": ((1, 1, 1, 1), (4, 6, 8, 10)), "images": images, "labels": np.array([0, 4])}
    for example in EXAMPLES:
        for text, small in SMALL.items():
            example = example.replace(text, small)
        exec(compile(example, "keras_hub.md", "exec"), names)
    assert names["probabilities"].shape == (2, 7)
    assert sent == [("convnextv2_tiny", "convnextv2_tiny")]
    assert names["classifier"].output_shape == (None, 5)
    assert names["detector"].predict(images, verbose=0)["boxes"].shape[0] == 2


@pytest.mark.slow
def test_classes():
    for name, base in re.findall(r"^\| `(\w+)` \| `keras_hub\.([\w.]+)` \|$", PAGE, re.MULTILINE):
        kind = keras_hub
        for part in base.split("."):
            kind = getattr(kind, part)
        assert issubclass(getattr(keras_cnv2.keras_hub, name), kind)
