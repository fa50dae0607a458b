import keras
import numpy as np
import pytest

from keras_cnv2.segmentation.resample import BinPooling


@pytest.mark.backends
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_averages_of_half_precision_are_computed_in_float32(dtype):
    """A fifteenth is 0.3 % too large in bfloat16."""
    pooled = BinPooling(1, dtype=dtype)(keras.ops.ones((1, 15, 15, 2), dtype))
    assert keras.backend.standardize_dtype(pooled.dtype) == dtype
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(keras.ops.cast(pooled, "float32")), np.ones((1, 1, 1, 2)))
