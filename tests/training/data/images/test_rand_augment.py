"""Against PIL, whose operations timm's are."""

import itertools
import math

import numpy as np
import pytest
from keras import ops
from PIL import Image, ImageEnhance, ImageOps

from tests.training.data.chance import MEAN, assert_same_mean, assert_share, many, picture
from training.data.draws import Draws
from training.data.images import augment
from training.data.images.rand_augment import OPERATIONS

pytestmark = pytest.mark.backends

# PIL's operations in timm's units.
PIL = {
    "AutoContrast": lambda image, amount: ImageOps.autocontrast(image),
    "Equalize": lambda image, amount: ImageOps.equalize(image),
    "Invert": lambda image, amount: ImageOps.invert(image),
    "PosterizeIncreasing": lambda image, amount: posterize(image, 4 - int(abs(amount) * 4)),
    "SolarizeIncreasing": lambda image, amount: ImageOps.solarize(image, 256 - int(abs(amount) * 256)),
    "SolarizeAdd": lambda image, amount: image.point(
        [min(255, value + int(abs(amount) * 110)) if value < 128 else value for value in range(256)] * len(image.mode)
    ),
    "ColorIncreasing": lambda image, amount: ImageEnhance.Color(image).enhance(factor(amount)),
    "ContrastIncreasing": lambda image, amount: ImageEnhance.Contrast(image).enhance(factor(amount)),
    "BrightnessIncreasing": lambda image, amount: ImageEnhance.Brightness(image).enhance(factor(amount)),
    "SharpnessIncreasing": lambda image, amount: ImageEnhance.Sharpness(image).enhance(factor(amount)),
    # timm's shears, and Pillow's rotation, keep to these.
    "Rotate": lambda image, amount: image.rotate(30 * amount, Image.Resampling.BILINEAR),
    "ShearX": lambda image, amount: affine(image, (1, 0.3 * amount, 0, 0, 1, 0)),
    "ShearY": lambda image, amount: affine(image, (1, 0, 0, 0.3 * amount, 1, 0)),
    "TranslateXRel": lambda image, amount: affine(image, (1, 0, 0.45 * amount * image.width, 0, 1, 0)),
    "TranslateYRel": lambda image, amount: affine(image, (1, 0, 0, 0, 1, 0.45 * amount * image.height)),
}
GEOMETRY = ["Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"]

# By how much PIL's whole grey levels differ from exact ones: where it cuts off the fraction of the result, and where it
# first rounds the image that is blended in (for contrast the grey image, then its mean).
CUT_OFF = {"AutoContrast": 1, "ColorIncreasing": 1, "ContrastIncreasing": 1, "BrightnessIncreasing": 1}
CUT_OFF["SharpnessIncreasing"] = 1
ROUNDED = {"ColorIncreasing": 0.5, "ContrastIncreasing": 1, "SharpnessIncreasing": 0.5}


def factor(amount):
    return max(0.1, 1 + 0.9 * amount)


def posterize(image, bits):
    # Pillow 13 refuses to keep no bits; before, that gave black.
    return ImageOps.posterize(image, bits) if bits else image.point(lambda value: 0)


def affine(image, coefficients):
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)


def ours(name, image, amount):
    operation = OPERATIONS[name]
    return ops.convert_to_numpy(operation(ops.cast(image, "float32"), ops.convert_to_tensor(amount, "float32")))


class TestOperations:
    def test_all_are_compared_with_pil(self):
        assert {*OPERATIONS} == {*PIL}
        assert len(PIL) == 15

    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("name", [name for name in PIL if name not in GEOMETRY])
    def test_colours_are_those_of_pil(self, name, channels):
        image = picture(channels=channels)
        for amount in (-1.0, -0.5, -0.2, 0.0, 0.3, 0.77, 0.9, 1.0):
            pil = PIL[name](Image.fromarray(image.squeeze(-1) if channels == 1 else image), amount)
            found = ours(name, image, amount)
            assert found.dtype == "float32"
            difference = np.abs(found - np.asarray(pil, "float32").reshape(image.shape)).max()
            # 1e-3: float32.
            assert difference < 1e-3 + CUT_OFF.get(name, 0) + ROUNDED.get(name, 0) * abs(1 - factor(amount))

    @pytest.mark.parametrize("name", ["AutoContrast", "Equalize"])
    def test_a_channel_of_one_value_stays(self, name):
        image = picture()
        image[..., 1] = 70
        found = ours(name, image, 0.5)
        np.testing.assert_array_equal(found[..., 1], 70)
        assert np.abs(found[..., 0] - image[..., 0]).max() > 5

    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("name", GEOMETRY)
    def test_geometry_is_that_of_pil(self, name, channels):
        image = picture(channels=channels).astype("float32")
        height, width, _ = image.shape
        # PIL tells which pixels come from within, away from the border, where it does not fade.
        inner = np.zeros((height, width), "float32")
        inner[1:-1, 1:-1] = 1
        for amount in (-1.0, -0.31, 0.0, 0.5, 0.9):
            found = ours(name, image, amount)
            known = np.asarray(PIL[name](Image.fromarray(inner), amount)) > 0.999
            assert known.mean() > 0.3
            for channel in range(channels):
                pil = PIL[name](Image.fromarray(image[..., channel]), amount)
                # 0.02: float32 coordinates, times the steepest slope.
                np.testing.assert_allclose(found[..., channel][known], np.asarray(pil)[known], atol=0.02)

    @pytest.mark.parametrize("channels", [1, 3])
    def test_new_pixels_have_the_mean_colour(self, channels):
        mean = MEAN if channels == 3 else MEAN.mean(keepdims=True)
        for name, axis in [("TranslateYRel", 0), ("TranslateXRel", 1)]:
            image = picture(channels=channels)
            for amount in (-1.0, 0.77):
                found = np.moveaxis(ours(name, image, amount), axis, 0)
                source = np.arange(len(found)) + 0.45 * amount * len(found)
                outside = (source < -1) | (source > len(found))
                assert outside.sum() >= 10
                np.testing.assert_allclose(found[outside], np.broadcast_to(mean, found[outside].shape), atol=1e-3)

    def test_shifts_by_whole_pixels_are_exact(self):
        image = picture(40, 40).astype("float32")
        for amount, shift in [(0.5, 9), (-1.0, -18), (0.0, 0)]:
            expected = np.tile(MEAN, (40, 40, 1))
            kept = slice(max(0, shift), 40 + min(0, shift)), slice(max(0, -shift), 40 + min(0, -shift))
            expected[kept[1]] = image[kept[0]]
            # 0.01: float32 coordinates.
            np.testing.assert_allclose(ours("TranslateYRel", image, amount), expected, atol=0.01)
            turned = ours("TranslateXRel", image.transpose(1, 0, 2), amount).transpose(1, 0, 2)
            np.testing.assert_allclose(turned, expected, atol=0.01)


class TestRandAugment:
    def test_operations_are_equally_likely_and_applied_half_of_the_time(self, monkeypatch):
        def marker(number):
            return lambda image, amount: 16 * image + number

        monkeypatch.setattr(
            "training.data.images.rand_augment.OPERATIONS", {number: marker(number) for number in range(1, 16)}
        )
        marks = many(lambda draws: augment.rand_augment(np.zeros((1, 1, 1)), 9.0, 0.5, draws))
        first, second = np.divmod(marks.ravel().astype(int), 16)
        # One pick alone leaves its mark in the lower place.
        assert_share((first > 0) & (second > 0), 0.25)
        assert_share((first == 0) & (second == 0), 0.25)
        alone = second[first == 0]
        for picked in (first[first > 0], second[first > 0], alone[alone > 0]):
            # A chi-square of 14 degrees of freedom has the mean 14 and the variance 28.
            expected = len(picked) / 15
            counts = np.bincount(picked, minlength=16)[1:]
            assert ((counts - expected) ** 2).sum() / expected < 14 + 5 * math.sqrt(28)
        # With replacement, and in any order.
        assert_share(first[first > 0] == second[first > 0], 1 / 15)
        assert_share(first[first > 0] < second[first > 0], 7 / 15)

    @pytest.mark.parametrize("number", [1, 2])
    def test_few_operations_are_applied_half_of_the_time_too(self, number, monkeypatch):
        """Where one too many or too few among all would change the share most."""
        monkeypatch.setattr(
            "training.data.images.rand_augment.OPERATIONS",
            {which: lambda image, amount, by=which + 1: 8 * image + by for which in range(number)},
        )
        marks = many(lambda draws: augment.rand_augment(np.zeros((1, 1, 1)), 9.0, 0.5, draws), 300).ravel().astype(int)
        assert_share(marks == 0, 0.25)
        assert_share(marks >= 8, 0.25)
        for which in range(number):
            assert_share(marks == which + 1, 0.5 / number)

    @pytest.mark.parametrize(("magnitude", "spread"), [(9.0, 0.5), (1.0, 1.0)])
    def test_levels_are_normal_within_limits(self, monkeypatch, magnitude, spread):
        def amount_alone(image, amount):
            return 0 * image + amount

        monkeypatch.setattr("training.data.images.rand_augment.OPERATIONS", dict.fromkeys(range(15), amount_alone))
        amounts = many(lambda draws: augment.rand_augment(np.full((1, 1, 1), 5.0), magnitude, spread, draws)).ravel()
        amounts = amounts[amounts != 5]
        assert_share(amounts[amounts != 0] > 0, 0.5)
        expected = np.clip(np.random.default_rng(0).normal(magnitude, spread, 20000), 0, 10)
        assert_same_mean(10 * abs(amounts), expected)
        for limit in (0, 1):
            assert_share(abs(amounts) == limit, np.mean(expected == 10 * limit) or 1e-9)

    def test_operation_level_and_direction_are_independent(self, monkeypatch):
        def mark(number):
            return lambda image, amount: ops.where(image == 0, number + amount / 4, image)  # that of the first

        monkeypatch.setattr(
            "training.data.images.rand_augment.OPERATIONS", {number: mark(number) for number in range(1, 16)}
        )
        marks = many(lambda draws: augment.rand_augment(np.zeros((1, 1, 1)), 5.0, 1.0, draws)).ravel()
        marks = marks[marks != 0]
        operations = marks.round()
        amounts = 4 * (marks - operations)
        levels = abs(amounts) - 0.5  # about their mean
        for one, two in itertools.combinations((operations, amounts > 0, levels), 2):
            for values in (two, abs(two)):
                assert abs(np.corrcoef(one, values)[0, 1]) < 5 / math.sqrt(len(marks))

    def test_the_two_operations_have_levels_and_directions_of_their_own(self, monkeypatch):
        def keep(image, amount):
            return ops.concatenate([ops.reshape(amount, (1, 1, 1)), image[:, :1]], axis=1)

        monkeypatch.setattr("training.data.images.rand_augment.OPERATIONS", dict.fromkeys(range(15), keep))
        amounts = many(lambda draws: augment.rand_augment(np.zeros((1, 2, 1)), 5.0, 1.0, draws), 1000)[:, 0, :, 0]
        amounts = amounts[(amounts != 0).all(1)]
        for values in (amounts > 0, abs(amounts)):
            assert abs(np.corrcoef(*values.T)[0, 1]) < 5 / math.sqrt(len(amounts))

    @pytest.mark.parametrize("channels", [1, 3])
    def test_images_stay_images(self, channels):
        image = picture(channels=channels)
        found = many(lambda draws: augment.rand_augment(image, 9.0, 0.5, draws), 200)
        assert found.shape == (200, *image.shape)
        assert found.dtype == "float32"
        # 0.01: float32 in interpolation and in stretching.
        assert -0.01 <= found.min() <= found.max() <= 255.01
        changed = (np.abs(found - image) > 2).any((1, 2, 3))
        # A quarter stays; greyscale images have no colour to change, small levels do little.
        assert 0.5 < changed.mean() < 0.9

    def test_other_channels_are_refused(self):
        with pytest.raises(ValueError, match=r"1 or 3 channels. Received: shape \(8, 8, 4\)"):
            augment.rand_augment(np.zeros((8, 8, 4), "float32"), 9.0, 0.5, Draws(0))

    def test_over_a_batch_every_image_has_draws_of_its_own(self, monkeypatch):
        few = {name: OPERATIONS[name] for name in ("BrightnessIncreasing", "TranslateXRel")}
        monkeypatch.setattr("training.data.images.rand_augment.OPERATIONS", few)
        batch = np.stack([picture(8, 8)] * 8)
        found = ops.convert_to_numpy(augment.over(self.augmented, batch, Draws(0, 1)))
        assert found.shape == (8, 8, 8, 3)
        assert len({one.tobytes() for one in found}) > 4
        batch[3:] = picture(8, 8, seed=1)
        others = ops.convert_to_numpy(augment.over(self.augmented, batch, Draws(0, 1)))
        np.testing.assert_array_equal(others[:3], found[:3])

    @staticmethod
    def augmented(image, draws):
        return augment.rand_augment(image, 9.0, 0.5, draws)
