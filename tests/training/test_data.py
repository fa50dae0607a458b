import numpy as np
from sklearn.datasets import load_digits

from training import data


def test_digits_are_all_there_and_apart():
    train, test = data.digits(32)
    assert train.images.shape == (1437, 32, 32, 1)
    assert test.images.shape == (360, 32, 32, 1)
    assert train.images.dtype == "uint8"
    assert {*train.labels} == {*test.labels} == {*range(10)}
    # Every tenth part of the test set is one class, give or take one image.
    assert abs(np.bincount(test.labels) - 36).max() <= 1
    scans = load_digits()
    small, _ = data.digits(8)
    known = {(scan.tobytes(), target) for scan, target in zip(scans.images, scans.target)}
    found = {(np.round(image[..., 0] / (255 / 16)).tobytes(), label) for image, label in zip(*small)}
    assert found <= known


def test_digits_are_always_split_alike():
    for one, two in zip(data.digits(16), data.digits(16)):
        np.testing.assert_array_equal(one.images, two.images)
        np.testing.assert_array_equal(one.labels, two.labels)


def test_batches_are_whole_shuffled_anew_and_reproducible():
    numbers = np.arange(10)

    def two_epochs():
        dataset = data.batches(numbers, 4, seed=1)
        assert len(dataset) == 2
        return [np.concatenate([*dataset.as_numpy_iterator()]) for _ in range(2)]

    first, second = two_epochs()
    assert len({*first}) == len({*second}) == 8
    assert (first != second).any()
    np.testing.assert_array_equal(two_epochs(), [first, second])


def test_augmentation_moves_pictures_and_keeps_labels():
    images = np.zeros((6, 32, 32, 1), "uint8")
    images[:, 12:20, 12:20] = 255
    dataset = data.batches((images, np.arange(6)), 6, seed=0, augment=data.shift_and_rotate(0.1, 15, seed=0))
    (moved, labels), (again, _) = next(iter(dataset)), next(iter(dataset))
    assert sorted(labels.numpy()) == [*range(6)]
    assert moved.shape == (6, 32, 32, 1)
    assert 0 <= moved.numpy().min() <= moved.numpy().max() <= 255
    assert (moved.numpy() != images).any(axis=(1, 2, 3)).all()
    assert (moved.numpy() != again.numpy()).any()
    # A shift of at most 3 pixels keeps the square in the picture.
    np.testing.assert_allclose(moved.numpy().sum((1, 2, 3)), 64 * 255, rtol=0.05)
