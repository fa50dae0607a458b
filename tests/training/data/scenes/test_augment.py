import colorsys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.training.data.scenes.small import recipe, scene
from training.data.draws import Draws
from training.data.scenes import augment

MEAN = np.float32([123.675, 116.28, 103.53])
EVERYWHERE = np.zeros(2, "int32")


def ints(*values):
    return tf.constant(values, tf.int32)


def resized(pixels, size):
    """As PIL does it, unrounded."""
    channels = [Image.fromarray(channel.astype("float32")) for channel in np.moveaxis(pixels, -1, 0)]
    return np.stack([channel.resize(size[::-1], Image.BILINEAR) for channel in channels], -1)


def graph(function):
    """As in a dataset: draws by number."""
    signature = [tf.TensorSpec((), tf.int64)]
    return tf.function(lambda number: function(Draws(0, number)), input_signature=signature, autograph=False)


class TestScaledSize:
    @pytest.mark.parametrize(
        ("size", "short_side", "ratio", "expected"),
        [
            ((480, 640), 512, 1.0, (512, 683)),
            ((640, 480), 512, 1.0, (683, 512)),
            ((480, 640), 512, 0.5, (256, 341)),
            ((100, 1000), 512, 1.0, (205, 2048)),  # the longer side is the limit
            ((100, 1000), 512, 2.0, (410, 4096)),
            ((30, 40), None, 1.0, (30, 40)),
            ((30, 40), None, 1.5, (45, 60)),
            ((1, 40), None, 0.1, (1, 4)),
            ((30, 42), None, 0.75, (23, 32)),  # halves are rounded up
        ],
    )
    def test_proportions_are_kept(self, size, short_side, ratio, expected):
        pixels = np.zeros((*size, 3), "uint8")
        np.testing.assert_array_equal(augment.scaled_size(pixels, short_side, ratio), expected)


class TestResize:
    @pytest.mark.parametrize("size", [(30, 40), (60, 80), (45, 61), (17, 23), (5, 90)])
    def test_image_against_pil(self, size):
        pixels = scene(1)[0]
        whole = augment.resize_image(pixels, ints(*size), ints(0, 0), ints(*size)).numpy()
        np.testing.assert_allclose(whole, resized(pixels, size), atol=1e-3)

    @pytest.mark.parametrize("size", [(30, 40), (60, 80), (45, 61), (17, 23), (7, 90)])
    def test_part_is_cut_out_of_the_whole(self, size):
        pixels, labels = scene(1)
        offset, window = ints(3, 5), ints(4, 10)
        for resize, values in ((augment.resize_image, pixels), (augment.resize_labels, labels)):
            whole = resize(values, ints(*size), ints(0, 0), ints(*size)).numpy()
            part = resize(values, ints(*size), offset, window).numpy()
            np.testing.assert_allclose(part, whole[3:7, 5:15], atol=1e-3)

    @pytest.mark.parametrize("size", [(30, 40), (60, 80), (90, 120), (45, 61), (17, 23), (10, 8), (1, 1)])
    def test_labels_lie_under_the_centres_of_pixels(self, size):
        labels = np.arange(30 * 40, dtype="int32").reshape(30, 40)
        expected = np.empty(size, "int32")
        for row in range(size[0]):
            for column in range(size[1]):
                y, x = (row * 2 + 1) * 30 / (size[0] * 2), (column * 2 + 1) * 40 / (size[1] * 2)
                expected[row, column] = labels[int(y), int(x)]
        np.testing.assert_array_equal(augment.resize_labels(labels, ints(*size), ints(0, 0), ints(*size)), expected)

    def test_labels_stay_with_their_pixels(self):
        """A picture that shows its own labels still does, but where classes meet."""
        labels = np.kron([[10, 80], [150, 220]], np.ones((15, 20))).astype("int32")
        pixels = np.repeat(labels[..., None], 3, -1).astype("uint8")
        for size in ((61, 80), (45, 53), (20, 31)):
            image, mapped = (
                resize(values, ints(*size), ints(4, 6), ints(12, 20)).numpy()
                for resize, values in ((augment.resize_image, pixels), (augment.resize_labels, labels))
            )
            assert np.mean(np.abs(image[..., 0] - mapped) < 1) > 0.7
            assert np.abs(image[..., 0] - mapped).max() <= 80


class TestWindow:
    def windows(self, labels, size=(60, 80), side=16, count=60):
        draw = graph(lambda draws: augment.random_window(labels, ints(*size), side, 255, draws))
        return [tuple(map(tuple, tf.nest.map_structure(lambda x: x.numpy(), draw(number)))) for number in range(count)]

    def test_anywhere_within_the_picture(self):
        labels = np.random.default_rng(0).integers(0, 9, (30, 40)).astype("int32")
        offsets, windows = (np.array(part) for part in zip(*self.windows(labels, size=(18, 24), count=200)))
        assert {*map(tuple, windows)} == {(16, 16)}
        np.testing.assert_array_equal(offsets.min(axis=0), [0, 0])
        np.testing.assert_array_equal(offsets.max(axis=0), [2, 8])

    def test_all_of_a_small_picture(self):
        assert {*self.windows(scene(0)[1].astype("int32"), (12, 20), 16, 20)} == {
            ((0, left), (12, 16)) for left in range(5)
        }

    def test_ignored_pixels_are_of_no_class(self):
        """Eight of nine are ignored: each first place will do, as where none is."""
        y, x = np.mgrid[:30, :40]
        labels = ((y // 3 + x // 3) % 2).astype("int32")
        mostly_ignored = np.where((y % 3 == 1) & (x % 3 == 1), labels, 255).astype("int32")
        assert self.windows(mostly_ignored) == self.windows(labels)

    def test_at_most_three_quarters_of_a_class(self):
        """Nearly all of the picture is of one class: most places would not do."""
        labels = np.zeros((30, 40), "int32")
        labels[:10, :16] = 1
        labels[:, 39] = 255
        mapped = augment.resize_labels(labels, ints(60, 80), ints(0, 0), ints(60, 80)).numpy()

        def share(offset, window):
            crop = mapped[offset[0] : offset[0] + window[0], offset[1] : offset[1] + window[1]]
            counts = np.bincount(crop[crop != 255], minlength=2)
            return counts.max() / max(counts.sum(), 1)

        shares = [share(*window) for window in self.windows(labels)]
        rng = np.random.default_rng(0)
        unchosen = [share((rng.integers(45), rng.integers(65)), (16, 16)) for _ in range(200)]
        assert np.mean(np.array(unchosen) < 0.75) < 0.3
        assert np.mean(np.array(shares) < 0.75) > 0.6

    def test_first_place_that_will_do(self):
        """Where all will, the first; where none will, the last."""
        draws = keras.random.uniform((10, 2), seed=Draws(0, 0)).numpy()
        places = np.int32(draws * [45, 65])
        labels = np.random.default_rng(0).integers(0, 9, (30, 40)).astype("int32")
        assert self.windows(labels, count=1)[0][0] == tuple(places[0])
        a_quarter = np.tile(np.arange(40, dtype="int32") % 4 == 0, (30, 1)).astype("int32")  # of any window
        for dull in (np.zeros_like(labels), np.full_like(labels, 255), a_quarter):
            assert self.windows(dull, count=1)[0][0] == tuple(places[9])


class TestPhotometric:
    def changes(self, count=40):
        rng = np.random.default_rng(0)
        image = rng.uniform(0, 255, (6, 7, 3)).astype("float32")
        change = graph(lambda draws: augment.photometric(image, draws))
        return image, [change(number).numpy() for number in range(count)]

    def test_against_one_pixel_after_the_other(self):
        image, results = self.changes()
        for number, result in enumerate(results):
            draws = Draws(0, number)
            chosen = keras.random.uniform((5,), seed=draws).numpy() < 0.5
            brightness, contrast, saturation, hue = keras.random.uniform((4,), seed=draws).numpy()

            def clip(x):
                return np.clip(x, 0, 255)

            def coloured(pixel, turn, factor):
                h, s, v = colorsys.rgb_to_hsv(*pixel)
                return colorsys.hsv_to_rgb((h + turn) % 1, min(s * factor, 1), v)

            expected = image.astype("float64")
            steps = [
                (chosen[0], lambda p, b=brightness: p + 64 * b - 32),
                (chosen[1] and chosen[4], lambda p, c=contrast: p * (0.5 + c)),
                (chosen[2], lambda p, s=saturation: np.array(coloured(p / 255, 0, 0.5 + s)) * 255),
                (chosen[3], lambda p, h=hue: np.array(coloured(p / 255, 0.2 * h - 0.1, 1)) * 255),
                (chosen[1] and not chosen[4], lambda p, c=contrast: p * (0.5 + c)),
            ]
            for is_on, step in steps:
                if is_on:
                    expected = np.array([[clip(step(pixel)) for pixel in row] for row in expected])
            np.testing.assert_allclose(result, expected, atol=0.01)

    def test_range_and_how_often(self):
        image, results = self.changes(100)
        assert min(result.min() for result in results) >= 0
        assert max(result.max() for result in results) <= 255
        unchanged = sum(np.array_equal(result, image) for result in results)
        assert 1 <= unchanged <= 14  # one in 16


class TestPad:
    def test_mean_colour_and_ignored(self):
        pixels, labels = scene(0, 5, 7)
        image, mapped = augment.pad(tf.cast(pixels, tf.float32), tf.cast(labels, tf.int32), 8, 11)
        np.testing.assert_array_equal(image[:5, :7], pixels)
        np.testing.assert_array_equal(mapped[:5, :7], labels)
        outside = np.ones((8, 8), bool)
        outside[:5, :7] = False
        np.testing.assert_allclose(image.numpy()[outside], np.tile(MEAN, (outside.sum(), 1)), rtol=1e-6)
        assert np.all(mapped.numpy()[outside] == 11)


class TestExamples:
    def examples(self, count=30, pixels=None, labels=None, **fields):
        if pixels is None:
            pixels, labels = scene(0)
        settings = recipe(**fields)
        pixels, labels = tf.constant(pixels), tf.constant(labels, tf.int32)
        draw = graph(lambda draws: augment.random_example(pixels, labels, settings, 255, draws))
        return [tuple(column.numpy() for column in draw(number)) for number in range(count)]

    def test_each_draw_is_another(self):
        """The same key, the same example."""
        pixels, labels = map(tf.constant, scene(0))
        settings = recipe(short_side=32)
        draw = graph(lambda draws: augment.random_example(pixels, tf.cast(labels, tf.int32), settings, 255, draws))
        examples, again = ([[column.numpy() for column in draw(number)] for number in range(30)] for _ in range(2))
        for image, labels in examples:
            assert (image.shape, image.dtype, labels.shape, labels.dtype) == ((32, 32, 3), "float32", (32, 32), "int32")
            assert 0 <= image.min() <= image.max() <= 255
        assert len({image.tobytes() for image, _ in examples}) == 30
        np.testing.assert_equal(again, examples)

    def test_ratio(self):
        """By how much of the square a picture fills that is smaller than it at any ratio."""
        pixels, labels = scene(0, 10, 10)
        sides = [
            int(np.sqrt((filled != 255).sum() / 0.9))
            for _, filled in self.examples(200, pixels, labels, image_size=32, scale=(0.5, 2.0), photometric=False)
        ]
        assert min(sides) == 5
        assert max(sides) in (19, 20)
        assert 11 < np.mean(sides) < 14

    def test_flip(self):
        pixels, labels = scene(0, 32, 32)
        options = {"pixels": pixels, "labels": labels, "photometric": False, "scale": (1.0, 1.0)}
        plain, flipped = (self.examples(flip=flip, **options) for flip in (False, True))
        mirrored = 0
        for (image, labels), (other, mapped) in zip(plain, flipped):
            is_mirrored = not np.array_equal(labels, mapped)
            step = -1 if is_mirrored else 1
            np.testing.assert_array_equal(other, image[:, ::step])
            np.testing.assert_array_equal(mapped, labels[:, ::step])
            mirrored += is_mirrored
        assert 6 < mirrored < 24

    def test_whole_picture_fitted(self):
        pixels, labels = scene(0)
        image, mapped = augment.fitted_example(pixels, labels.astype("int32"), 20, 255)
        assert (image.shape, mapped.shape) == ((20, 20, 3), (20, 20))
        np.testing.assert_allclose(image[:15], resized(pixels, (15, 20)), atol=1e-3)
        np.testing.assert_array_equal(mapped[15:], np.full((5, 20), 255))
        np.testing.assert_array_equal(mapped[:15], labels[1::2, 1::2])
