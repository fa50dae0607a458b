import tracemalloc

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

from tests.training.small import finetuning, pretraining, source
from training.data.images import arrays
from training.data.images.augment import Augmentation
from training.data.shares import Share

pytestmark = pytest.mark.backends
PLAIN = {"crop_area": (1.0, 1.0), "flip": False}


def numbered(count):
    """Images that are their own number."""
    images = np.arange(count, dtype="uint8").reshape(-1, 1, 1, 1) * np.ones((1, 16, 16, 1), "uint8")
    return arrays.Arrays(arrays.Split(images, np.arange(count) % 2), None, "ab")


def take(batches, count, first=0):
    return [batches[first + i] for i in range(count)]


def test_digits_are_all_there_and_apart():
    digits = arrays.digits(32)
    assert digits.train.images.shape == (1437, 32, 32, 1)
    assert digits.test.images.shape == (360, 32, 32, 1)
    assert digits.train.images.dtype == "uint8"
    assert digits.class_names == tuple("0123456789")
    # Every tenth part of the test set is one class, give or take one image.
    assert abs(np.bincount(digits.test.labels) - 36).max() <= 1
    scans = load_digits()
    known = {(scan.tobytes(), target) for scan, target in zip(scans.images, scans.target)}
    small = arrays.digits(8).train
    found = {(np.round(image[..., 0] / (255 / 16)).tobytes(), label) for image, label in zip(*small)}
    assert found <= known


def test_digits_are_always_split_alike():
    for one, two in zip(arrays.digits(16).train, arrays.digits(16).train):
        np.testing.assert_array_equal(one, two)


def test_share_of_each_class():
    labels = np.repeat([0, 1, 3], [40, 10, 2])[np.random.default_rng(0).permutation(52)]
    images = np.arange(52, dtype="uint8").reshape(-1, 1, 1, 1)
    whole = arrays.Arrays(arrays.Split(images, labels), arrays.Split(images, labels), "abcd")
    some, again, others = (whole.with_share(0.2, seed) for seed in (0, 0, 1))
    assert some.size == 8 + 2 + 1
    assert [*np.bincount(some.train.labels)] == [8, 2, 0, 1]
    numbers = some.train.images.ravel()
    assert len({*numbers}) == 11
    np.testing.assert_array_equal(labels[numbers], some.train.labels)
    np.testing.assert_array_equal(again.train.images, some.train.images)
    assert not np.array_equal(others.train.images, some.train.images)
    assert some.test is whole.test
    assert whole.with_share(1, 0) is whole


def by_class(count):
    """Images that are their own number, sorted by class: the first five of six are of the first one."""
    images = np.arange(count, dtype="uint8").reshape(-1, 1, 1, 1)
    return arrays.Split(images, np.repeat([0, 1], [count - count // 6, count // 6]))


def test_held_out_of_each_class():
    whole = arrays.Arrays(by_class(60), None, "ab")
    some, again, others = (whole.with_held_out(0.2, seed) for seed in (0, 0, 1))
    assert (some.size, some.validation_size) == (48, 12)
    assert [*np.bincount(some.test.labels)] == [10, 2]
    numbers = [part.images.ravel() for part in (some.train, some.test)]
    assert sorted(np.concatenate(numbers)) == [*range(60)]
    for part, of_part in zip((some.train, some.test), numbers):
        np.testing.assert_array_equal(part.labels, whole.train.labels[of_part])
    np.testing.assert_array_equal(again.test.images, some.test.images)
    assert not np.array_equal(others.test.images, some.test.images)


def test_nothing_or_all_is_held_out():
    whole = arrays.Arrays(by_class(12), None, "ab")
    assert whole.with_held_out(0, 0) is whole
    everything = whole.with_held_out(1.0, 0)
    assert (everything.size, everything.validation_size, everything.channels) == (0, 12, 1)
    np.testing.assert_array_equal(everything.test.images, whole.train.images)
    tested = arrays.Arrays(by_class(12), by_class(6), "ab")
    assert tested.with_held_out(0.5, 0) is tested
    # One image is trained on, and none is left to hold out.
    alone = arrays.Arrays(arrays.Split(np.zeros((2, 1, 1, 1), "uint8"), np.arange(2)), None, "ab")
    assert (alone.with_held_out(0.5, 0).size, alone.with_held_out(0.5, 0).test) == (2, None)


@pytest.mark.parametrize("test", [None, by_class(60)])
def test_examples_are_of_several_classes_and_always_the_same(test):
    data = arrays.Arrays(by_class(60), test, "ab")
    images, labels = data.examples(None, 20, labelled=True)
    assert len({*images.ravel()}) == 20
    assert {*labels} == {0, 1}
    np.testing.assert_array_equal(labels, by_class(60).labels[images.ravel()])
    np.testing.assert_array_equal(data.examples(None, 20), images)
    np.testing.assert_array_equal(data.examples(None, 5), images[:5])
    if test:
        np.testing.assert_array_equal(data.validation(None, 20, mixed=True)[0][0], images)


def test_an_epoch_has_every_image_at_most_once_in_a_new_order():
    recipe = pretraining(**PLAIN, batch_size=4)
    batches = numbered(10).training(recipe)
    epochs = [np.concatenate(take(batches, 2, first))[:, 0, 0, 0] for first in (0, 2, 4)]
    assert all(len({*epoch}) == 8 for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[1], epochs[2])
    other = np.concatenate(take(numbered(10).training(pretraining(**PLAIN, batch_size=4, seed=1)), 2))
    assert not np.array_equal(other[:, 0, 0, 0], epochs[0])


def test_goes_on_from_any_batch_as_if_never_interrupted():
    recipe = finetuning(batch_size=8, accumulation=2)
    augmentation = Augmentation(3, rand_augment=9.0, erasing=0.5, label_smoothing=0.1, mixup=0.5, cutmix=0.5)
    whole = take(source().training(recipe, 0, augmentation), 2, 5)
    rest = take(source().training(recipe, 5, augmentation), 2)
    for one, two in zip(whole, rest, strict=True):
        assert one[0].shape == (4, 16, 16, 3)
        assert one[1].shape == (4, 3)
        np.testing.assert_array_equal(one[0], two[0])
        np.testing.assert_array_equal(one[1], two[1])


def test_crops_and_flips_change_images():
    plain, changed = (source().training(pretraining(**fields))[0] for fields in (PLAIN, {}))
    assert plain.shape == changed.shape
    assert (np.abs(plain - changed).mean(axis=(1, 2, 3)) > 1).all()


def test_flips_alternate():
    """Over two epochs each image is there as it is and mirrored; which comes first is drawn."""
    recipe = pretraining(**{**PLAIN, "flip": True}, alternate_flip=True, batch_size=4)
    ramps = np.broadcast_to(np.arange(16, dtype="uint8")[:, None], (8, 16, 16, 3)).copy()
    ramps[:, 0, 8] = np.arange(100, 108)[:, None]  # a pixel that tells which image it is
    data = arrays.Arrays(arrays.Split(ramps, np.zeros(8, "int32")), None, ["a"])
    mirrored = []
    for first in (0, 2, 4):
        images = np.concatenate(take(data.training(recipe), 2, first))
        numbers = images[:, 0, 7:9].max((1, 2)).astype(int) - 100
        mirrored.append(dict(sorted(zip(numbers.tolist(), (images[:, 1, 0, 0] == 15).tolist()))))
    assert [*mirrored[0]] == [*range(8)]
    assert mirrored[0] == mirrored[2] == {number: not flipped for number, flipped in mirrored[1].items()}
    assert {*mirrored[0].values()} == {True, False}


def test_shifts_and_cutout_are_of_each_image():
    fields = {**PLAIN, "batch_size": 8}
    plain, shifted = (source().training(pretraining(**fields, shift=shift))[0] for shift in (0, 2))
    assert (np.abs(plain - shifted).mean(axis=(1, 2, 3)) > 1).sum() >= 6
    images, _ = source().training(finetuning(**fields), 0, Augmentation(3, cutout=8))[0]
    holes = [image[:, :, 0].round(2) == np.float32(123.68) for image in images]
    assert {int(hole.sum()) for hole in holes} == {64}
    assert len({hole.tobytes() for hole in holes}) > 1


def test_all_draws_are_independent():
    """Those of changes to an image and of changes to a batch; at any step and place, and after a crop and a flip."""

    def number(draws):
        return keras.random.uniform((1, 1, 1), seed=draws)

    class Numbers:
        """Leaves its own number in the first row of an image, that of the batch below."""

        rand_augment, erasing, cutout = 9.0, 0.0, 0

        def image(self, image, draws):
            return 0 * image + number(draws)

        def batch(self, images, labels, draws):
            return keras.ops.concatenate([images[:, :1], 0 * images[:, 1:] + number(draws)], axis=1), labels

    drawn = []
    for images, _ in take(source(16).training(finetuning(), augmentation=Numbers()), 3):  # two steps are an epoch
        pictures, batch = images[:, :2, 0, 0].T
        drawn += [*pictures, batch[0]]
    assert len({*drawn}) == len(drawn) == 3 * (8 + 1)


def test_validation_is_every_image_once():
    validation = source(test=11).validation(None, 4)
    batches = take(validation, validation.num_batches)
    assert {len(column) for batch in batches for column in batch} == {4}
    images, labels, weights = (np.concatenate(column) for column in zip(*batches))
    np.testing.assert_array_equal(weights, [1] * 11 + [0])
    np.testing.assert_array_equal(images[:11], source(test=11).test.images)
    np.testing.assert_array_equal(labels[:11].argmax(-1), np.arange(11) % 3)
    assert source(test=0).validation(None, 4) is None


def test_many_classes_take_little_memory():
    split = arrays.Split(np.zeros((4, 1, 1, 1), "uint8"), np.array([0, 9999, 17, 0], "int32"))
    tracemalloc.start()
    _, labels, _ = arrays.Ordered(split, 4, 10_000)[0]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (labels.shape, labels.dtype) == ((4, 10_000), "float32")
    np.testing.assert_array_equal(labels.argmax(-1), split.labels)
    np.testing.assert_array_equal(labels.sum(axis=-1), 1)
    assert peak < 10 * labels.nbytes


def assert_parts_make(whole, parts, workers):
    """The parts of all workers put together are the batches of one, and as many of each."""
    assert len(parts) == workers
    for batch, *of_workers in zip(whole, *parts, strict=True):
        sizes = {len(column) for part in of_workers for column in keras.tree.flatten(part)}
        assert sizes == {len(keras.tree.flatten(batch)[0]) // workers}
        together = keras.tree.map_structure(lambda *columns: np.concatenate(columns), *of_workers)
        keras.tree.map_structure(np.testing.assert_array_equal, together, batch)


def test_shares_of_training():
    """Also mixed as by one worker."""
    augmentation = Augmentation(3, label_smoothing=0.1, mixup=0.5, cutmix=0.5)
    recipe = finetuning(batch_size=8, accumulation=2)
    # Over the end of the epoch, after six batches.
    whole = take(source().training(recipe, 0, augmentation), 2, 5)
    shares = [Share(worker, 4) for worker in range(4)]
    parts = [take(source().training(recipe, 0, augmentation, share), 2, 5) for share in shares]
    assert_parts_make(whole, parts, 4)
    rest = take(source().training(recipe, 5, augmentation, Share(1, 4)), 2)
    for one, two in zip(parts[1], rest, strict=True):
        keras.tree.map_structure(np.testing.assert_array_equal, one, two)


@pytest.mark.parametrize(("batch_size", "workers"), [(4, 2), (4, 4), (8, 4)])
def test_shares_of_validation(batch_size, workers):
    """Five images: in the last batch some workers have none at all."""
    whole = source(test=5).validation(None, batch_size)
    shares = [source(test=5).validation(None, batch_size, Share(worker, workers)) for worker in range(workers)]
    assert [share.num_batches for share in shares] == [-(-5 // batch_size)] * workers
    parts = [take(share, share.num_batches) for share in shares]
    assert_parts_make(take(whole, whole.num_batches), parts, workers)
    images, labels, weights = (np.concatenate(column) for column in zip(*(batch for part in parts for batch in part)))
    assert weights.sum() == 5
    assert {image.tobytes() for image in images[weights == 1]} == {image.tobytes() for image in whole.split.images}
    assert labels[weights == 1].sum(axis=0).tolist() == [2, 2, 1]
    assert not parts[-1][-1][2].any()
