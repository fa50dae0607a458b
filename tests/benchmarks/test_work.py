"""benchmarks/work.py"""

import keras
import pytest
import tensorflow as tf

import keras_cnv2
from benchmarks.work import multiply_accumulates
from keras_cnv2.detection import mask_rcnn
from keras_cnv2.sizes import SIZES


def test_layers():
    """Also of a layer that is called twice."""
    twice = keras.layers.Dense(7)
    layers = [
        keras.layers.Conv2D(5, 3, padding="same"),
        keras.layers.Conv2DTranspose(4, 2, strides=2),
        keras.layers.Dense(7),
    ]
    model = keras.Sequential([keras.Input((6, 8, 3)), *layers, twice, twice])
    positions = 2 * 6 * 8
    expected = positions * (9 * 3 * 5 + 4 * 5 * 4) + 4 * positions * (4 * 7 + 2 * 7 * 7)
    assert multiply_accumulates(model, tf.TensorSpec((2, 6, 8, 3))) == expected


def test_published_size():
    model = keras_cnv2.ConvNeXtV2Atto()
    found = multiply_accumulates(model, tf.TensorSpec((1, 224, 224, 3)))
    assert found == pytest.approx(SIZES["atto"].gmacs * 1e9, rel=0.01)


@pytest.mark.slow
def test_mask_rcnn_of_the_paper():
    """Published for ConvNeXt V1's tiny at 1280 x 800: 262 G, with 1000 proposals and 100 masks, without RoIAlign.

    V1 has no GRN, in which nothing is counted.
    """
    encoder = keras_cnv2.ConvNeXtV2Backbone("tiny", pyramid_norms=True, input_shape=(None, None, 3))
    model = mask_rcnn(encoder, 80)
    counts = [multiply_accumulates(model, tf.TensorSpec((1, 800, 1280, 3)))]
    for head, boxes, bins in ((model.box_head, 1000, 7), (model.mask_head, 100, 14)):
        counts.append(multiply_accumulates(head, tf.TensorSpec((1, boxes, bins, bins, 256))))
    assert sum(counts) == pytest.approx(262e9, rel=0.01)
