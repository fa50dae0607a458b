import keras
import numpy as np
import pytest

import keras_cnv2

ONES = np.ones((4000, 2, 3, 2), "float32")


@pytest.mark.backends
def test_drops_whole_samples_and_keeps_the_mean():
    y = keras.ops.convert_to_numpy(keras_cnv2.DropPath(0.2, seed=1)(ONES, training=True)).reshape(4000, -1)
    assert (y == y[:, :1]).all()
    np.testing.assert_allclose(np.unique(y), [0, 1 / 0.8], rtol=1e-6)
    # 4000 draws: the share of zeros is within four standard deviations (0.0063) of the rate.
    assert abs((y[:, 0] == 0).mean() - 0.2) < 0.026


@pytest.mark.backends
@pytest.mark.parametrize(("rate", "training"), [(0.5, False), (0.5, None), (0.0, True)])
def test_returns_the_input(rate, training):
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(keras_cnv2.DropPath(rate)(ONES, training=training)), ONES)


@pytest.mark.backends
def test_each_layer_has_its_own_generator():
    def draw(layer):
        return keras.ops.convert_to_numpy(layer(ONES, training=True))[:, 0, 0, 0]

    first, second = keras_cnv2.DropPath(0.5, seed=1), keras_cnv2.DropPath(0.5, seed=2)
    one, two, three = draw(first), draw(second), draw(first)
    assert (one != two).any()
    assert (one != three).any()
    np.testing.assert_array_equal(draw(keras_cnv2.DropPath(0.5, seed=1)), one)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, "0.1", None, True])
def test_impossible_rate(rate):
    with pytest.raises(ValueError, match=f"rate must be a number in .*Received: rate={rate!r}"):
        keras_cnv2.DropPath(rate)
