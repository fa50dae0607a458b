import keras

import keras_cnv2
from keras_cnv2.checkpoints.metadata import metadata_of


def relu(x):
    """Called like one of Keras's own."""
    return -x


def test_functions_of_users_do_not_pass_for_those_of_keras():
    for activation, expected in ((keras.activations.relu, "relu"), (relu, None), (None, "linear"), ("softmax", None)):
        model = keras_cnv2.ConvNeXtV2((1, 1, 1, 1), (4, 4, 4, 4), classes=2, classifier_activation=activation)
        assert metadata_of(model).get("classifier_activation") == expected
