import keras
import numpy as np
import pytest

from keras_cnv2.errors import ExportError
from keras_cnv2.export.check import compare, full_precision

EXPECTED = np.linspace(-2, 1, 1000).reshape(10, 100)


def changed(by):
    values = EXPECTED.copy()
    values[3, 4] += by
    return values


@pytest.mark.parametrize("by", [3e-4, -3e-4, np.nan, np.inf])
def test_one_value_of_a_thousand_is_not_the_models(by):
    with pytest.raises(ExportError, match="probabilities: the export's values are not the model's"):
        compare("probabilities", changed(by), EXPECTED)


def test_differences_are_relative_to_the_largest_value():
    compare("probabilities", changed(1.5e-4), EXPECTED)
    compare("probabilities", changed(0.9), EXPECTED, tolerance=0.5)


def test_other_shapes_of_the_same_values():
    with pytest.raises(ExportError, match=r"shape is \(10, 100\), the model's \(1000,\)"):
        compare("probabilities", EXPECTED, EXPECTED.ravel())


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a setting of TensorFlow")
@pytest.mark.parametrize("before", [True, False])
def test_full_precision_ends(before):
    from tensorflow.config import experimental

    is_enabled, enable = experimental.tensor_float_32_execution_enabled, experimental.enable_tensor_float_32_execution
    first = is_enabled()
    enable(before)
    try:
        with full_precision():
            assert not is_enabled()
        assert is_enabled() == before
    finally:
        enable(first)
