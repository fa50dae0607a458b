"""`keras_hub.upload_preset` and `from_preset("hf://...")`, against a hub on this machine."""

import keras_hub
import numpy as np
import pytest
from huggingface_hub import constants, hf_api

from keras_cnv2.keras_hub import ConvNeXtV2ImageClassifier, ConvNeXtV2ImageClassifierPreprocessor
from tests.checkpoints.hub_server import HubServer, point_to
from tests.keras_hub.small import classifier
from tests.segmentation.small import with_values


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub without repositories, as `huggingface_hub` finds it."""
    with HubServer({}).running() as server:
        point_to(server.url, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(hf_api.api, "endpoint", server.url)
        yield server


def test_uploaded_and_downloaded(hub, tmp_path):
    made = with_values(classifier(preprocessor=ConvNeXtV2ImageClassifierPreprocessor(), compile=False))
    folder = str(tmp_path / "preset")
    made.save_to_preset(folder)
    keras_hub.upload_preset("hf://owner/name", folder)
    sent = {file for repository, file in hub.files if repository == "owner/name"}
    assert sent >= {"config.json", "model.weights.h5", "task.json", "task.weights.h5", "preprocessor.json", "README.md"}
    assert b"ConvNeXtV2" in hub.files["owner/name", "README.md"]
    again = keras_hub.models.ImageClassifier.from_preset("hf://owner/name")
    assert type(again) is ConvNeXtV2ImageClassifier
    for theirs, ours in zip(again.get_weights(), made.get_weights()):
        np.testing.assert_array_equal(theirs, ours)
