import numpy as np
import pytest

from keras_cnv2.detection.anchors import all_anchors, anchor_generator, check_sides, level_sizes

pytest.importorskip("keras_cv")


def anchors_by_hand(height, width):
    """Position by position: three sizes an octave, and of each three shapes."""
    for stride, size in zip((8, 16, 32, 64, 128), (32, 64, 128, 256, 512)):
        for y in np.arange(stride / 2, -(-height // stride) * stride, stride):
            for x in np.arange(stride / 2, -(-width // stride) * stride, stride):
                for scale in (0, 1, 2):
                    for ratio in (0.5, 1, 2):  # width to height
                        side = size * 2 ** (scale / 3)
                        half_width, half_height = side * ratio**0.5 / 2, side / ratio**0.5 / 2
                        yield x - half_width, y - half_height, x + half_width, y + half_height


@pytest.mark.parametrize("sides", [(64, 96), (128, 32)])
def test_anchors_are_those_of_the_paper(sides):
    expected = np.array([*anchors_by_hand(*sides)])
    np.testing.assert_allclose(all_anchors(anchor_generator(), (2, *sides, 3)), expected, rtol=1e-5, atol=1e-4)
    assert sum(level_sizes((2, *sides, 3))) == len(expected)


def test_there_is_a_prediction_for_each_anchor():
    from tests.detection.samples import images, tiny

    model = tiny()
    for side in (32, 96, 160):
        outputs = model(images(1, side))
        number = sum(level_sizes((1, side, side, 3)))
        assert outputs["box"].shape == (1, number, 4)
        assert outputs["classification"].shape == (1, number, 3)


def test_sides_that_do_not_fit_are_named():
    check_sides((None, None, 64, 3))
    with pytest.raises(ValueError, match="multiples of 32.*Received: images of shape \\(2, 64, 72, 3\\)"):
        check_sides((2, 64, 72, 3))
    with pytest.raises(ValueError, match="height and width.*Received: images of shape \\(2, None, 64, 3\\)"):
        check_sides((2, None, 64, 3), are_known=True)
