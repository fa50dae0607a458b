import json

import keras
import pytest

import keras_cnv2
from keras_cnv2 import CheckpointError
from keras_cnv2.checkpoints.metadata import KEY, metadata_of
from keras_cnv2.checkpoints.source import fetch_weights, open_weights
from keras_cnv2.checkpoints.write import write_tensors


def small(**arguments):
    return keras_cnv2.ConvNeXtV2((1, 1, 1, 1), (4, 4, 4, 4), classes=2, **arguments)


def relu(x):
    """Called like one of Keras's own."""
    return -x


def test_functions_of_users_do_not_pass_for_those_of_keras():
    for activation, expected in ((keras.activations.relu, "relu"), (relu, None), (None, "linear"), ("softmax", None)):
        assert metadata_of(small(classifier_activation=activation)).get("classifier_activation") == expected


def test_names_of_another_number_of_classes(tmp_path):
    model, metadata = small(), {KEY: json.dumps({"class_names": ["a", "b", "c"]})}
    write_tensors(tmp_path / "it.safetensors", keras_cnv2.state_dict(model), metadata)
    with pytest.raises(CheckpointError, match="metadata: 3 class_names for another number of classes"):
        keras_cnv2.load_checkpoint(model, tmp_path / "it.safetensors")
    assert model.class_names is None


def test_a_files_own_metadata_come_before_those_of_a_published_file_of_its_name(tmp_path):
    path = tmp_path / "convnextv2_atto.fcmae_ft_in1k.safetensors"  # of 224 pixels
    keras_cnv2.save_checkpoint(small(image_size=96, resize="squash"), path)
    with open_weights(fetch_weights(path)) as contents:
        assert (contents.metadata["image_size"], contents.metadata["resize"]) == (96, "squash")
