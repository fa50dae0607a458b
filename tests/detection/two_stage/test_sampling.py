import keras
import numpy as np
import pytest
from keras import ops

from keras_cnv2.detection.two_stage.sampling import sample

pytestmark = [
    pytest.mark.backends,
    pytest.mark.skipif(keras.backend.backend() == "torch", reason="Mask R-CNN is for TensorFlow and JAX"),
]


def drawn(matched, background, number=8, most=4, total=30):
    """Returns sorted indices of the sampled matched and background ones of one image."""
    kinds = np.zeros((2, 1, total), bool)
    kinds[0, 0, :matched], kinds[1, 0, matched : matched + background] = True, True
    draws = np.random.default_rng(0).uniform(size=(1, total)).astype("float32")
    indices, is_there = sample(*map(ops.convert_to_tensor, (*kinds, draws)), number, most)
    indices, is_there = ops.convert_to_numpy(indices)[0], ops.convert_to_numpy(is_there)[0]
    assert len({*indices}) == number
    found = indices[is_there]
    is_matched = found < matched
    assert (np.diff(is_matched.astype(int)) <= 0).all()  # the matched ones come first
    for part, kind in ((found[is_matched], kinds[0, 0]), (found[~is_matched], kinds[1, 0])):
        best = np.argsort(-np.where(kind, draws[0], -1))[: len(part)]
        assert {*part} == {*best}
    return is_matched.sum(), (~is_matched).sum()


@pytest.mark.parametrize(
    ("there", "expected"),
    [((10, 20), (4, 4)), ((2, 20), (2, 6)), ((0, 20), (0, 8)), ((10, 1), (4, 1)), ((0, 0), (0, 0)), ((3, 3), (3, 3))],
)
def test_background_fills_what_matched_ones_leave(there, expected):
    assert drawn(*there) == expected


def test_negative_numbers_are_never_drawn():
    is_matched = np.array([[True, True, True, False, False]])
    draws = np.float32([[-1, 0.5, -1, 0.1, -1]])
    indices, is_there = sample(*map(ops.convert_to_tensor, (is_matched, ~is_matched, draws)), 4, 2)
    assert [*ops.convert_to_numpy(indices)[0][ops.convert_to_numpy(is_there)[0]]] == [1, 3]
