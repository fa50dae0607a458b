import keras
import numpy as np
import pytest

from keras_cnv2.layers import LayerNorm

pytestmark = pytest.mark.backends


@pytest.mark.parametrize(
    ("argument", "value"), [("axis", 1), ("axis", [1, 2]), ("center", False), ("scale", False), ("rms_scaling", True)]
)
def test_impossible_arguments(argument, value):
    with pytest.raises(ValueError, match=f"LayerNorm works with {argument}=.* only. Received: {argument}="):
        LayerNorm(**{argument: value})


def test_configuration_before_and_after_it_is_built():
    layer, x = LayerNorm(epsilon=1e-4, name="x"), np.random.default_rng(0).standard_normal((2, 3, 4))
    again = LayerNorm.from_config(layer.get_config())
    y = keras.ops.convert_to_numpy(again(x))
    np.testing.assert_allclose(y.mean(-1), 0, atol=1e-6)
    np.testing.assert_array_equal(y, keras.ops.convert_to_numpy(LayerNorm.from_config(again.get_config())(x)))
