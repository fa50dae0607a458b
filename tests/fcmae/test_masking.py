import keras
import numpy as np
import pytest

from keras_cnv2.fcmae import masking

pytestmark = pytest.mark.backends


def numpy(x):
    return keras.ops.convert_to_numpy(x)


@pytest.mark.parametrize(("patches", "ratio", "visible"), [(49, 0.6, 19), (25, 0.75, 6), (16, 0.6, 6), (4, 0.5, 2)])
def test_count_visible(patches, ratio, visible):
    assert masking.count_visible(patches, ratio) == visible


def test_random_hidden_is_exact_and_uniform():
    hidden = numpy(masking.random_hidden(2000, 3, 4, 5, seed=keras.random.SeedGenerator(0)))
    assert set(np.unique(hidden)) == {0, 1}
    assert ((1 - hidden).sum((1, 2)) == 5).all()
    # Each patch is hidden with probability 7/12; four standard deviations over 2000 draws are 0.044.
    assert abs(hidden.mean(0) - 7 / 12).max() < 0.044


def test_random_hidden_is_reproducible_and_changes():
    def draw(generator):
        return numpy(masking.random_hidden(4, 5, 5, 10, seed=generator))

    first, second = keras.random.SeedGenerator(1), keras.random.SeedGenerator(1)
    one, two = draw(first), draw(first)
    np.testing.assert_array_equal(draw(second), one)
    assert (one != two).any()
    assert any((one[0] != other).any() for other in one[1:])


def test_enlarge():
    hidden = np.array([[[1, 0, 0], [0, 1, 0]]])
    np.testing.assert_array_equal(numpy(masking.enlarge(hidden, 2))[0], np.kron(hidden[0], np.ones((2, 2))))


def test_patches_are_ordered_row_column_channel():
    images = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3).astype("float32")
    patches = numpy(masking.to_patches(keras.ops.convert_to_tensor(images), 2))
    assert patches.shape == (2, 6, 12)
    np.testing.assert_array_equal(patches[1, 4], images[1, 2:4, 2:4].reshape(-1))  # row 1, column 1
    np.testing.assert_array_equal(numpy(masking.from_patches(keras.ops.convert_to_tensor(patches), 4, 6, 2)), images)


def test_patch_statistics():
    patches = np.random.default_rng(0).standard_normal((2, 5, 12)).astype("float32")
    mean, std = map(numpy, masking.patch_statistics(keras.ops.convert_to_tensor(patches)))
    np.testing.assert_allclose(mean[..., 0], patches.mean(-1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(std[..., 0], np.sqrt(patches.var(-1, ddof=1) + 1e-6), rtol=1e-5)


@pytest.mark.parametrize("p", [1, 2, 4])
def test_gather_and_scatter_visible_patches(p):
    hidden = np.array([[[1, 0, 0], [1, 1, 0]], [[0, 1, 1], [0, 0, 1]]], "float32")
    grid = np.random.default_rng(0).standard_normal((2, 2 * p, 3 * p, 5)).astype("float32")
    patches = masking.VisiblePatches(keras.ops.convert_to_tensor(hidden), 3)
    tokens = patches.gather(keras.ops.convert_to_tensor(grid))
    expected = [
        grid[n, i * p : (i + 1) * p, j * p : (j + 1) * p] for n in range(2) for i, j in zip(*np.where(hidden[n] == 0))
    ]
    np.testing.assert_array_equal(numpy(tokens), expected)
    back = grid * (1 - np.kron(hidden, np.ones((1, p, p))))[..., None]
    np.testing.assert_array_equal(numpy(patches.scatter(tokens)), back)


@pytest.mark.parametrize("reach", [1, 3, 4])
def test_surround_visible_patches(reach):
    hidden = np.array([[[1, 0, 0], [1, 1, 0]], [[0, 1, 1], [0, 0, 1]]], "float32")
    patches = masking.VisiblePatches(keras.ops.convert_to_tensor(hidden), 3)
    x = keras.ops.convert_to_tensor(np.random.default_rng(0).standard_normal((6, 4, 4, 5)).astype("float32"))
    frame = [(0, 0), (reach, reach), (reach, reach), (0, 0)]
    grid = np.pad(numpy(patches.scatter(x)), frame)
    expected = [
        grid[n, 4 * i : 4 * i + 4 + 2 * reach, 4 * j : 4 * j + 4 + 2 * reach]
        for n in range(2)
        for i, j in zip(*np.where(hidden[n] == 0))
    ]
    np.testing.assert_array_equal(numpy(patches.surround(x, reach)), expected)
