import itertools
import math

import keras
import numpy as np
import pytest
from keras import ops
from PIL import Image

from tests.training.data.chance import BACKEND, MEAN, STD, assert_same_mean, assert_share, many, picture
from tests.training.small import finetuning
from training.data.draws import Draws
from training.data.images import augment
from training.data.images.augment import Augmentation

pytestmark = pytest.mark.backends

tensorflow_only = pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.data computes with TensorFlow")
jax_only = pytest.mark.skipif(BACKEND != "jax", reason="jax.jit computes with JAX")


class TestCrops:
    @staticmethod
    def reference(height, width, area, random):
        """RandomResizedCrop in plain words."""
        for _ in range(10):
            pixels = height * width * random.uniform(*area)
            ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
            crop_width, crop_height = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
            if 0 < crop_width <= width and 0 < crop_height <= height:
                top = random.integers(0, height - crop_height, endpoint=True)
                left = random.integers(0, width - crop_width, endpoint=True)
                return top, left, crop_height, crop_width
        ratio = min(max(width / height, 3 / 4), 4 / 3)
        crop_width, crop_height = min(width, round(height * ratio)), min(height, round(width / ratio))
        return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width

    def test_windows_are_distributed_as_in_the_reference(self):
        """So long a picture that boxes are drawn again, and some are the centre crop at last."""
        height, width, area = 60, 200, (0.2, 1.0)
        drawn = np.stack(many(lambda draws: augment.sample_crop(height, width, area, draws)), -1)
        assert drawn.dtype == "int32"
        random = np.random.default_rng(0)
        reference = np.array([self.reference(height, width, area, random) for _ in range(20000)])

        def features(boxes):
            top, left, crop_height, crop_width = boxes.T
            return {
                "area": crop_height * crop_width / (height * width),
                "log ratio": np.log(crop_width / crop_height),
                "top": top / height,
                "left": left / width,
                "bottom": (top + crop_height) / height,
                "right": (left + crop_width) / width,
            }

        drawn, reference = features(drawn), features(reference)
        for name in drawn:
            assert_same_mean(drawn[name], reference[name])
            # Within what is possible, up to the rounding of sides to whole pixels.
            assert drawn[name].min() >= reference[name].min() - 0.02
            assert drawn[name].max() <= reference[name].max() + 0.02
        for edge in ("top", "left"):
            assert drawn[edge].min() >= 0
        for edge in ("bottom", "right"):
            assert drawn[edge].max() <= 1

    def test_area_shape_and_place_are_independent(self):
        drawn = np.stack(many(lambda draws: augment.sample_crop(400, 400, (0.2, 0.4), draws), 1000), -1)
        top, left, height, width = drawn.T
        parts = (height * width, width / height, top / (400 - height), left / (400 - width))
        for one, two in itertools.combinations(parts, 2):
            assert abs(np.corrcoef(one, two)[0, 1]) < 5 / math.sqrt(len(drawn))

    def test_extreme_shapes_get_the_largest_centre_crop(self):
        for position in range(3):
            for shape, box in [((10, 1000), (0, 493, 10, 13)), ((1000, 10), (493, 0, 13, 10))]:
                found = augment.sample_crop(*shape, (0.2, 1.0), Draws(0, position))
                assert tuple(map(int, found)) == box

    def test_the_largest_centre_crop_within_the_limits_is_everything(self):
        drawn = np.stack(many(lambda draws: augment.sample_crop(40, 50, (1.0, 1.0), draws)), -1)
        # A box of the same area fits if its ratio is between 50.5 ** 2 / 2000 and 2000 / 40.5 ** 2, and is less than a
        # pixel smaller.
        assert drawn[:, 2:].min(0).tolist() == [40, 49]
        fits = math.log(50.5**2 * 40.5**2 / 2000**2) / math.log(16 / 9)
        narrow = math.log(49.5**2 * 40.5**2 / 2000**2) / math.log(16 / 9)
        assert_share(drawn[:, 3] == 49, (1 - (1 - fits) ** 10) * narrow / fits)
        assert (drawn[drawn[:, 3] == 50] == (0, 0, 40, 50)).all()

    def test_sides_may_be_tensors(self):
        sides = [ops.convert_to_tensor(side, "int32") for side in (100, 150)]
        for position in range(5):
            one = augment.sample_crop(100, 150, (0.2, 1.0), Draws(0, position))
            two = augment.sample_crop(*sides, (0.2, 1.0), Draws(0, position))
            assert tuple(map(int, one)) == tuple(map(int, two))

    def test_the_whole_image_stays_as_it_is(self):
        images = picture()[None]
        assert augment.resized_crops(images, (1.0, 1.0), Draws(0)) is images

    def test_resized_crops_are_windows_resized_bilinearly(self):
        count, height, width = 12, 40, 56
        y, x = np.mgrid[:height, :width].astype("float32")
        smooth = 128 + 60 * np.sin(x / 7) + 50 * np.cos(y / 5)
        images = np.stack([np.stack([x, y, smooth], -1)] * count)
        crops = ops.convert_to_numpy(augment.resized_crops(images, (0.2, 1.0), Draws(2)))
        assert crops.shape == images.shape
        boxes = set()
        for columns, rows, found in np.moveaxis(crops, -1, 1):
            # Bilinear interpolation of coordinates gives the coordinates that were looked up.
            np.testing.assert_allclose(columns, columns[:1].repeat(height, 0), atol=1e-3)
            np.testing.assert_allclose(rows, rows[:, :1].repeat(width, 1), atol=1e-3)
            middle, middle_row = width // 2, height // 2
            crop_width = (columns[0, middle + 4] - columns[0, middle - 4]) / 8 * width
            crop_height = (rows[middle_row + 4, 0] - rows[middle_row - 4, 0]) / 8 * height
            left = columns[0, middle] + 0.5 - (middle + 0.5) * crop_width / width
            top = rows[middle_row, 0] + 0.5 - (middle_row + 0.5) * crop_height / height
            box = np.array([top, left, crop_height, crop_width])
            np.testing.assert_allclose(box, box.round(), atol=1e-2)
            top, left, crop_height, crop_width = box.round().astype(int)
            boxes.add((top, left, crop_height, crop_width))
            assert 0 <= top <= top + crop_height <= height
            assert 0 <= left <= left + crop_width <= width
            # Half a pixel of rounding in either side.
            assert 0.17 < crop_height * crop_width / (height * width) <= 1
            assert 0.7 < crop_width / crop_height < 1.43
            window = Image.fromarray(smooth[top : top + crop_height, left : left + crop_width])
            # PIL's affine transform, and not its resizing, is bilinear without other weights at the borders.
            expected = window.transform(
                (width, height),
                Image.Transform.AFFINE,
                (crop_width / width, 0, 0, 0, crop_height / height, 0),
                Image.Resampling.BILINEAR,
            )
            error = np.abs(found - expected)
            # At its border the window alone lacks the neighbours, up to half a pixel away.
            assert error.max() < 0.5 * (60 / 7 + 50 / 5)
            edge_y, edge_x = (
                math.ceil(0.5 * side / crop) for side, crop in ((height, crop_height), (width, crop_width))
            )
            assert error[edge_y:-edge_y, edge_x:-edge_x].max() < 0.01
        assert len(boxes) > count // 2


def test_half_of_the_images_are_flipped():
    images = np.random.default_rng(0).integers(0, 256, (1000, 2, 3, 1)).astype("uint8")
    flipped = ops.convert_to_numpy(augment.flips(images, Draws(1)))
    assert flipped.dtype == "uint8"
    mirrored, same = ((flipped == other).all((1, 2, 3)) for other in (images[:, :, ::-1], images))
    assert (mirrored | same).all()
    # Few images are their own mirror image.
    assert_share(mirrored[mirrored != same], 0.5)
    one = many(lambda draws: augment.flip(images[0], draws))
    assert_share((one == images[0, :, ::-1]).all((1, 2, 3)), 0.5)
    assert ((one == images[0, :, ::-1]).all((1, 2, 3)) | (one == images[0]).all((1, 2, 3))).all()


def test_flips_in_turns():
    images = np.stack([picture(seed=seed) for seed in range(3)])
    flipped = np.int32([0, 1, 1])
    for epoch in range(3):
        received = ops.convert_to_numpy(augment.flips_in_turns(images, flipped, np.int32(epoch)))
        for image, other, number in zip(images, received, flipped):
            np.testing.assert_array_equal(other, image[:, ::-1] if (number + epoch) % 2 else image)


def test_shifts_are_windows_of_the_reflected_image():
    image = picture(8, 10)
    padded = np.pad(image, [(3, 3), (3, 3), (0, 0)], "reflect")
    windows = {padded[y : y + 8, x : x + 10].tobytes(): (y, x) for y in range(7) for x in range(7)}
    places = [windows[each.tobytes()] for each in many(lambda draws: augment.shift(image, 3, draws))]
    assert len({*places}) == 49
    assert_same_mean([y for y, _ in places], [*range(7)] * 100)
    assert_same_mean([x for _, x in places], [*range(7)] * 100)


def test_cutout_is_a_square_of_the_mean_colour():
    image = picture(8, 10)
    changed = many(lambda draws: augment.cutout(image, 4, draws))
    assert changed.dtype == "float32"
    places = set()
    for each in changed:
        rows, columns = np.nonzero((each != image).any(-1))
        top, left = rows.min(), columns.min()
        places.add((top, left))
        expected = image.astype("float32")
        expected[top : top + 4, left : left + 4] = MEAN
        np.testing.assert_allclose(each, expected, atol=1e-4)
    assert places == {(top, left) for top in range(5) for left in range(7)}


class TestErase:
    @staticmethod
    def reference(height, width, random):
        """The sides of the box of random erasing in plain words."""
        for _ in range(10):
            pixels = height * width * random.uniform(0.02, 1 / 3)
            ratio = math.exp(random.uniform(math.log(0.3), math.log(1 / 0.3)))
            box = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
            if 0 < box[0] < height and 0 < box[1] < width:
                return box
        return 0, 0

    @staticmethod
    def erased(shape, probability):
        """Images that were 7 everywhere, and where they are no more."""
        image = np.full(shape, 7, "uint8")
        found = many(lambda draws: augment.erase(image, probability, draws))
        assert found.dtype == "float32"
        changed = found != 7
        # All channels of a pixel or none.
        np.testing.assert_array_equal(changed.all(-1), changed.any(-1))
        return found, changed.any(-1)

    def test_probability_is_that_of_each_image(self):
        _, changed = self.erased((24, 32, 1), 0.25)
        assert_share(changed.any((1, 2)), 0.25)

    def test_whether_an_image_is_erased_does_not_depend_on_the_box(self):
        (_, every), (_, some) = (self.erased((16, 12, 1), probability) for probability in (1.0, 0.5))
        areas, is_erased = every.sum((1, 2)), some.any((1, 2))
        np.testing.assert_array_equal(some[is_erased], every[is_erased])  # the same draws
        assert_same_mean(areas[is_erased], areas[~is_erased])

    def test_boxes_are_distributed_as_in_the_reference(self):
        height, width = 32, 40
        _, changed = self.erased((height, width, 1), 1.0)
        rows, columns = changed.any(2), changed.any(1)
        np.testing.assert_array_equal(changed, rows[:, :, None] & columns[:, None, :])
        box_height, box_width = rows.sum(1), columns.sum(1)
        # Never all of a side.
        assert box_height.max() < height
        assert box_width.max() < width
        random = np.random.default_rng(0)
        reference = np.array([self.reference(height, width, random) for _ in range(20000)])
        assert_same_mean(box_height * box_width, reference.prod(1))
        assert_same_mean(np.log(box_height / box_width), np.log(reference[:, 0] / reference[:, 1]))
        # Anywhere: the space before and after the box is the same on average.
        for lines, side in ((rows, height), (columns, width)):
            before, after = lines.argmax(1), lines[:, ::-1].argmax(1)
            assert (before + lines.sum(1) + after == side).all()
            difference = before - after
            assert abs(difference.mean()) < 5 * difference.std() / math.sqrt(len(difference))
            assert before.min() == after.min() == 0

    def test_noise_is_standard_normal_after_normalisation(self):
        found, changed = self.erased((16, 16, 3), 1.0)
        noise = (found[changed] - MEAN) / STD
        count = len(noise)
        assert (abs(noise.mean(0)) < 5 / math.sqrt(count)).all()
        assert (abs(noise.var(0) - 1) < 5 * math.sqrt(2 / count)).all()
        assert (abs((noise**4).mean(0) - 3) < 5 * math.sqrt(96 / count)).all()
        # Not cut off, and drawn for each value.
        assert found.min() < 0
        assert found.max() > 255
        correlation = np.corrcoef(np.concatenate([noise[1:], noise[:-1]], 1).T) - np.eye(6)
        assert abs(correlation).max() < 5 / math.sqrt(count)

    def test_images_of_a_batch_have_boxes_of_their_own(self):
        images = np.full((6, 16, 16, 1), 7, "uint8")
        found = ops.convert_to_numpy(augment.over(Augmentation(10, erasing=1.0).image, images, Draws(0)))
        assert len({(one != 7).tobytes() for one in found}) == 6

    def test_without_probability_nothing_happens(self):
        found = ops.convert_to_numpy(augment.erase(picture(), 0.0, Draws(0)))
        assert found.dtype == "float32"
        np.testing.assert_array_equal(found, picture())


def test_soft_labels():
    found = ops.convert_to_numpy(augment.soft_labels(np.array([2, 0]), 5, 0.1))
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, [[0.02, 0.02, 0.92, 0.02, 0.02], [0.92, 0.02, 0.02, 0.02, 0.02]], rtol=1e-6)
    np.testing.assert_array_equal(ops.convert_to_numpy(augment.soft_labels(np.array([1]), 3, 0.0)), [[0, 1, 0]])


class TestMix:
    HEIGHT, WIDTH = 16, 24

    @classmethod
    def mixed(cls, mixup, cutmix):
        """Batches of two images, 0 and 1 everywhere, of the classes 0 and 1: the first image, its label's own share."""
        images = np.stack([np.full((cls.HEIGHT, cls.WIDTH, 1), value, "uint8") for value in (0, 1)])
        images, labels = many(lambda draws: augment.mix(images, np.eye(2, dtype="float32"), mixup, cutmix, draws))
        assert images.dtype == labels.dtype == "float32"
        # Label mass stays, and both images share the same way.
        np.testing.assert_allclose(labels.sum(-1), 1, atol=1e-6)
        np.testing.assert_allclose(labels[:, 0], labels[:, 1, ::-1], atol=1e-6)
        np.testing.assert_allclose(images[:, 0], 1 - images[:, 1], atol=1e-6)
        # What an image keeps of itself, on average over its pixels, is what it keeps of its label.
        np.testing.assert_allclose(labels[:, 0, 0], 1 - images[:, 0].mean((1, 2, 3)), atol=1e-5)
        return images[:, 0, :, :, 0], labels[:, 0, 0]

    def test_both_off_leaves_all_as_it_is(self):
        images, labels = picture()[None], np.eye(1, 3, dtype="float32")
        found = augment.mix(images, labels, 0.0, 0.0, Draws(0))
        assert found[0] is images
        assert found[1] is labels

    def test_mixup_blends_by_a_beta_distributed_share(self):
        """Here of 0.3; test_in_turns_a_batch_gets_one_of_them has another."""
        alpha = 0.3
        images, own = self.mixed(alpha, 0.0)
        np.testing.assert_allclose(images, np.tile(1 - own[:, None, None], (1, self.HEIGHT, self.WIDTH)), atol=1e-5)
        assert_same_mean(own, np.random.default_rng(0).beta(alpha, alpha, 20000))

    def test_cutmix_pastes_a_box(self):
        alpha = 1.0
        images, own = self.mixed(0.0, alpha)
        assert {*np.unique(images)} == {0.0, 1.0}
        pasted = images == 1
        rows, columns = pasted.any(2), pasted.any(1)
        np.testing.assert_array_equal(pasted, rows[:, :, None] & columns[:, None, :])
        # The label's share is that of the kept pixels to the last digits of float32.
        np.testing.assert_allclose(own, 1 - pasted.mean((1, 2)), atol=2e-7)
        random = np.random.default_rng(0)
        assert_same_mean(own, [self.reference(alpha, random) for _ in range(20000)])
        for lines in (rows, columns):
            first, last = lines.argmax(1)[lines.any(1)], lines[:, ::-1].argmax(1)[lines.any(1)]
            assert (lines.sum(1)[lines.any(1)] + first + last == lines.shape[1]).all()
            assert first.min() == last.min() == 0

    @classmethod
    def reference(cls, alpha, random):
        """The share that an image keeps in CutMix, in plain words."""
        edges = []
        cut = math.sqrt(1 - random.beta(alpha, alpha))
        for side in (cls.HEIGHT, cls.WIDTH):
            half, centre = int(side * cut) // 2, random.integers(0, side)
            edges.append(min(side, centre + half) - max(0, centre - half))
        return 1 - edges[0] * edges[1] / (cls.HEIGHT * cls.WIDTH)

    def test_in_turns_a_batch_gets_one_of_them(self):
        images, own = self.mixed(3.0, 0.2)
        blended = ((images > 0) & (images < 1)).any((1, 2))
        assert_share(blended, 0.5)
        random = np.random.default_rng(0)
        # All pixels alike, with mixup's shares, or a box with those of CutMix.
        np.testing.assert_allclose(images[blended].min((1, 2)), images[blended].max((1, 2)), atol=1e-6)
        assert_same_mean(own[blended], random.beta(3.0, 3.0, 20000))
        assert_same_mean(own[~blended], [self.reference(0.2, random) for _ in range(20000)])

    def test_the_partner_is_the_batch_in_reverse(self):
        images = np.arange(4, dtype="float32").reshape(4, 1, 1, 1) * np.ones((4, 2, 2, 3), "float32")
        labels = np.eye(4, dtype="float32")
        found, targets = augment.mix(images, labels, 0.8, 0.0, Draws(0))
        own = float(targets[0, 0])
        np.testing.assert_allclose(targets, own * labels + (1 - own) * labels[::-1], atol=1e-6)
        np.testing.assert_allclose(found, own * images + (1 - own) * images[::-1], atol=1e-5)


class TestAugmentation:
    PAPER = Augmentation(10, rand_augment=9.0, erasing=0.25, label_smoothing=0.1, mixup=0.8, cutmix=1.0)

    def test_of_a_recipe(self):
        """All settings are the recipe's, except for those that are given."""
        settings = {
            "rand_augment": 3.0,
            "rand_augment_std": 0.1,
            "erasing": 0.2,
            "cutout": 4,
            "label_smoothing": 0.3,
            "mixup": 0.6,
            "cutmix": 0.7,
        }
        assert Augmentation.of(finetuning(**settings), 5) == Augmentation(5, **settings)
        assert Augmentation.of(finetuning(**settings), 5, cutout=0) == Augmentation(5, **{**settings, "cutout": 0})

    def test_everything_off(self):
        images = np.stack([picture(seed=seed) for seed in range(2)])
        augmentation = Augmentation(10)
        assert augmentation.image(images, Draws(0)) is images
        found, targets = augmentation.batch(images, np.array([3, 4]), Draws(0))
        assert keras.backend.standardize_dtype(found.dtype) == "float32"
        np.testing.assert_array_equal(ops.convert_to_numpy(found), images)
        np.testing.assert_array_equal(ops.convert_to_numpy(targets), np.eye(10)[[3, 4]])

    def test_an_image_is_rand_augmented_then_erased(self, monkeypatch):
        monkeypatch.setattr(augment, "rand_augment", lambda *arguments: arguments)
        monkeypatch.setattr(augment, "erase", lambda *arguments: arguments)
        augmentation = Augmentation(10, rand_augment=9.0, rand_augment_std=0.2)
        assert augmentation.image("image", "draws") == ("image", 9.0, 0.2, "draws")
        augmentation = Augmentation(10, rand_augment=9.0, erasing=0.25)
        assert augmentation.image("image", "draws") == (("image", 9.0, 0.5, "draws"), 0.25, "draws")

    def test_a_batch_is_mixed(self):
        images = np.stack([np.full((16, 16, 3), value, "uint8") for value in (0, 200)])
        augmentation = Augmentation(10, label_smoothing=0.1, mixup=1.0)
        found, targets = (ops.convert_to_numpy(x) for x in augmentation.batch(images, np.array([3, 4]), Draws(0, 5)))
        expected = images.astype("float32")
        smooth = augment.soft_labels(np.array([3, 4]), 10, 0.1)
        expected, smooth = augment.mix(expected, smooth, 1.0, 0.0, Draws(0, 5))
        np.testing.assert_allclose(found, ops.convert_to_numpy(expected), atol=1e-3)
        np.testing.assert_allclose(targets, ops.convert_to_numpy(smooth), atol=1e-6)
        own = targets[0, 3] - 0.01
        np.testing.assert_allclose(targets[0, [4, 0]], [0.91 - own, 0.01], atol=1e-6)

    @tensorflow_only
    def test_a_dataset_is_the_same_again_and_from_any_step_on(self):
        import tensorflow as tf

        images = np.stack([picture(seed=seed) for seed in range(8)])

        def augmented(image, position):
            draws = Draws(0, position)
            top, left, height, width = augment.sample_crop(*image.shape[:2], (0.2, 1.0), draws)
            image = tf.image.resize(image[top : top + height, left : left + width], (24, 24))
            return self.PAPER.image(augment.flip(image, draws), draws)

        def batches(start):
            dataset = tf.data.Dataset.range(start, 24)
            dataset = dataset.map(lambda i: augmented(tf.constant(images)[i % 8], i), num_parallel_calls=4)
            dataset = dataset.batch(4).enumerate(start // 4)
            return dataset.map(lambda i, x: self.PAPER.batch(x, tf.range(4), Draws(1, i)), num_parallel_calls=4)

        first, resumed = ([*batches(start).as_numpy_iterator()] for start in (0, 8))
        assert len(first) == 6
        for one, two in zip(first[2:], resumed, strict=True):
            np.testing.assert_array_equal(one[0], two[0])
            np.testing.assert_array_equal(one[1], two[1])
        # Outside of a dataset as well; 0.05: float32 coordinates.
        outside = tf.stack([augmented(tf.constant(images[i]), i) for i in range(4)])
        outside, _ = self.PAPER.batch(outside, tf.range(4), Draws(1, 0))
        np.testing.assert_allclose(outside, first[0][0], atol=0.05)

    @jax_only
    def test_jit_takes_positions_as_they_come(self):
        import jax

        images = np.stack([picture(16, 16, seed=seed) for seed in range(2)])

        def step(position):
            draws = Draws(0, position)
            cropped = augment.flips(augment.resized_crops(images, (0.2, 1.0), draws), draws)
            augmented = augment.over(self.PAPER.image, cropped, draws)
            return cropped, *self.PAPER.batch(augmented, np.array([3, 4]), draws)

        compiled = jax.jit(step)
        one, again, two = compiled(1), compiled(1), compiled(2)
        for part, same, other in zip(one, again, two):
            np.testing.assert_array_equal(part, same)
            assert np.abs(part - other).max() > 0.01
        draws = Draws(0, 1)
        eager = augment.flips(augment.resized_crops(images, (0.2, 1.0), draws), draws)
        # 0.05: float32 coordinates.
        np.testing.assert_allclose(one[0], eager, atol=0.05)
