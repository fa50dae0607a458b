import keras
import numpy as np
import pytest

import keras_cnv2
from tests.training.analysis.small import SMALL, classifier, images
from training.analysis.features import Blocks


@pytest.mark.backends
def test_blocks():
    """What they hold leads to what comes out of them."""
    model = classifier()
    blocks = Blocks(model)
    assert blocks.names == ["stages_0_0", "stages_1_0", "stages_1_1", "stages_2_0", "stages_3_0"]
    before = None
    for name, (expanded, output) in zip(blocks.names, blocks.of(images())):
        assert expanded.shape == (*output.shape[:-1], 4 * output.shape[-1])
        if name == "stages_1_1":
            out = keras.ops.convert_to_numpy(model.get_layer(name).pwconv2(expanded))
            np.testing.assert_allclose(output, before + out, atol=1e-4)
        before = output
    top = keras.ops.convert_to_numpy(model.get_layer("head")(model.get_layer("norm")(output.mean((1, 2)))))
    np.testing.assert_allclose(top, keras.ops.convert_to_numpy(model(images())), atol=1e-5)


def test_blocks_of_an_fcmae():
    fcmae = keras_cnv2.FCMAE(keras_cnv2.ConvNeXtV2Backbone(**SMALL), 16, decoder_dim=8)
    (*_, (_, output)), expected = Blocks(fcmae).of(images()), fcmae.backbone(images())
    np.testing.assert_allclose(output, keras.ops.convert_to_numpy(expected), atol=1e-6)
