import functools
import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.training.data.boxes.small import NAMES, extent, mask_of, picture, recipe
from training.data.boxes import augment, masks
from training.data.draws import Draws

MEAN = np.float32([0.485, 0.456, 0.406]) * 255

# One box a class, in a picture of 60 x 45.
BOXES = [(5, 4, 25, 18), (30, 8, 58, 22), (12, 24, 40, 43)]
OBJECTS = list(zip(NAMES, BOXES))


def encoded(pixels, kind="PNG", **options):
    contents = io.BytesIO()
    Image.fromarray(pixels).save(contents, kind, **options)
    return contents.getvalue()


def photo(height, width):
    y, x = np.mgrid[:height, :width] / 9
    return np.stack([np.sin(y + n) * 60 + np.cos(x * (n + 1) / 2) * 50 + 128 for n in range(3)], -1).astype("uint8")


@functools.partial(tf.function, reduce_retracing=True, autograph=False)
def jitter(contents, boxes, classes, scale, flip, min_box, key):
    return augment.jitter(contents, boxes, classes, recipe(scale=scale, flip=flip, min_box=min_box), Draws(7, key))


def jittered(contents, boxes, classes, keys, scale=(1.0, 1.0), flip=True, min_box=1.0):
    """What becomes of a picture for each of some keys: images, boxes and classes."""
    boxes = np.float32(boxes).reshape(-1, 4)
    arguments = [tf.constant(x) for x in (contents, boxes, np.int32(classes))]
    numbers = [tf.constant(x, tf.float32) for x in (*scale, min_box)]
    results = [jitter(*arguments, tuple(numbers[:2]), flip, numbers[2], tf.constant(key)) for key in range(keys)]
    return keras.tree.map_structure(lambda x: x.numpy(), results)


class TestJitter:
    @pytest.mark.parametrize(
        ("kind", "options"), [("PNG", {}), ("JPEG", {"quality": 95, "subsampling": 0}), ("BMP", {})]
    )
    def test_boxes_are_where_their_colours_are(self, kind, options):
        contents = encoded(picture(OBJECTS, 60, 45), kind, **options)
        results = jittered(contents, BOXES, range(3), 30, scale=(0.3, 4.0), flip=True, min_box=3.0)
        found = dropped = clipped = 0
        for image, boxes, classes in results:
            assert 0 <= image.min() < image.max() <= 255
            assert sorted({*classes} - {-1}) == sorted(classes[classes >= 0])
            for number, name in enumerate(NAMES):
                seen = extent(image, name)
                (places,) = np.nonzero(classes == number)
                if len(places):
                    found += 1
                    np.testing.assert_allclose(boxes[places[0]], seen, atol=1.01)
                    clipped += bool(np.isin(boxes[places[0]], (0, 40)).any())
                else:
                    dropped += 1
                    assert seen is None or min(seen[2] - seen[0], seen[3] - seen[1]) < 4
        assert min(found, dropped, clipped) > 5

    def test_as_it_is(self):
        """At the scale 1 a picture as large as the square keeps its pixels; below it is ImageNet's mean colour."""
        pixels = photo(30, 40)
        ((image, boxes, classes),) = jittered(encoded(pixels), [[1, 2, 3.5, 4]], [2], 1, flip=False)
        np.testing.assert_allclose(image[:30], pixels, atol=1e-3)
        np.testing.assert_array_equal(image[30:], np.broadcast_to(MEAN, (10, 40, 3)))
        np.testing.assert_array_equal(boxes, [[1, 2, 3.5, 4]] + [[-1] * 4] * 3)
        np.testing.assert_array_equal(classes, [2, -1, -1, -1])
        assert {part.dtype.name for part in (image, boxes, classes)} == {"float32"}

    def test_flip(self):
        """The picture is mirrored, what is filled up stays right and below."""
        pixels = photo(40, 24)
        results = jittered(encoded(pixels), [[2, 3, 9, 12]], [1], 30, flip=True)
        mirrored = 0
        for image, boxes, _ in results:
            is_mirrored = boxes[0, 0] != 2
            mirrored += is_mirrored
            np.testing.assert_allclose(image[:, :24], pixels[:, ::-1] if is_mirrored else pixels, atol=1e-2)
            np.testing.assert_array_equal(image[:, 24:], np.broadcast_to(MEAN, (40, 16, 3)))
            np.testing.assert_array_equal(boxes[0], [15, 3, 22, 12] if is_mirrored else [2, 3, 9, 12])
        assert 8 < mirrored < 22

    @pytest.mark.parametrize(("height", "width", "scale"), [(50, 70, 0.2), (90, 33, 0.6), (50, 70, 1.0), (90, 33, 1.7)])
    def test_against_pil(self, scale, height, width):
        """Resized and then cut: only the pixels that are kept are computed, and they are the same."""
        pixels = photo(height, width)
        told = {"scale": (scale, scale), "flip": True}
        results = jittered(encoded(pixels), [], [], 4, **told)
        for key, (image, boxes, classes) in enumerate(results):
            factor, start, mirrored = augment.sample_square(
                tf.constant([height, width], tf.float32), recipe(**told), Draws(7, tf.constant(key))
            )
            factor, start = float(factor), start.numpy()
            assert factor == pytest.approx(scale * 40 / max(height, width))
            # Of rows and of columns, those that lie in the picture as a whole.
            places = np.arange(40)[:, None] + start
            whole = (places >= 0) & (places + 1 <= factor * np.array([height, width]))
            (top, bottom), (left, right) = (np.flatnonzero(side)[[0, -1]] for side in whole.T)
            box = np.array([left + start[1], top + start[0], right + 1 + start[1], bottom + 1 + start[0]]) / factor
            expected = Image.fromarray(pixels).resize((right + 1 - left, bottom + 1 - top), Image.BILINEAR, tuple(box))
            image = image[:, ::-1] if mirrored else image
            np.testing.assert_allclose(image[top : bottom + 1, left : right + 1], expected, atol=1.1)
            assert (boxes == -1).all()
            assert (classes == -1).all()

    @pytest.mark.parametrize("scale", [0.15, 0.3, 0.6, 1.0])
    def test_large_jpeg(self, scale):
        """Decoded at a part of its size, or in part, it is what the same pixels in a PNG give."""
        pixels = np.asarray(Image.fromarray(photo(45, 61)).resize((243, 181), Image.BICUBIC))
        jpeg = encoded(pixels, "JPEG", quality=98, subsampling=0)
        png = encoded(np.asarray(Image.open(io.BytesIO(jpeg))))
        told = {"scale": (scale, scale * 2), "flip": True}
        both = [jittered(contents, [[20, 30, 200, 150]], [0], 5, **told) for contents in (jpeg, png)]
        for (image, *labels), (expected, *expected_labels) in zip(*both):
            assert np.abs(image - expected).mean() < 0.6
            for label, expected_label in zip(labels, expected_labels):
                np.testing.assert_array_equal(label, expected_label)

    def test_long_pictures(self):
        """At a small scale nothing may be left of the shorter side."""
        results = jittered(encoded(photo(2, 200)), [[0, 0, 200, 2]], [0], 5, scale=(0.1, 2.0), flip=True)
        for image, boxes, _ in results:
            assert np.isfinite(image).all()
            assert (boxes[0] == -1).all() or boxes[0, 3] >= 1


class TestMasks:
    """Rectangles and an ellipse in a picture of 60 x 45."""

    dense = np.stack([np.full((45, 60), False), np.full((45, 60), False), mask_of(BOXES[2], 60, 45)])
    for plane, (left, top, right, bottom) in zip(dense, BOXES[:2]):
        plane[top:bottom, left:right] = True

    @staticmethod
    @functools.partial(tf.function, reduce_retracing=True)
    def jitter(contents, boxes, counts, scale, flip, key):
        told, draws = recipe(scale=scale, flip=flip), Draws(7, key)
        square = augment.sample_square(tf.constant([45.0, 60.0]), told, Draws(7, key))
        return augment.jitter(contents, boxes, tf.range(3), told, draws, masks=counts), square

    def jittered(self, keys, scale, flip=True, boxes=BOXES):
        contents = tf.constant(encoded(picture(OBJECTS, 60, 45)))
        arguments = contents, tf.constant(np.float32(boxes)), tf.constant(masks.encode(self.dense))
        arguments += tuple(map(tf.constant, scale)), tf.constant(flip)
        results = [self.jitter(*arguments, tf.constant(key)) for key in range(keys)]
        return keras.tree.map_structure(lambda x: x.numpy(), results)

    @pytest.mark.parametrize("scale", [(0.3, 1.0), (1.0, 3.0)])
    def test_against_numpy(self, scale):
        """The nearest pixel to each centre, with the same scale, place and mirroring as the boxes."""
        whole = cut = 0
        for (_, boxes, classes, found), (factor, start, mirrored) in self.jittered(12, scale):
            expected = np.zeros((3, 40, 40), bool)
            for y in range(40):
                for x in range(40):
                    row, column = (np.array([y, 39 - x if mirrored else x]) + 0.5 + start) / factor
                    if 0 <= row < 45 and 0 <= column < 60:
                        expected[:, y, x] = self.dense[:, int(row), int(column)]
            assert found.dtype == "uint8"
            assert found.shape == (4, 40, 40)
            assert classes[classes >= 0].tolist() == sorted(classes[classes >= 0])
            for box, number, plane in zip(boxes, classes, found):
                if number < 0:
                    assert not plane.any()
                    continue
                np.testing.assert_array_equal(plane, expected[int(number)])
                around = masks.boxes_around(plane[None])[0]
                left, right = np.array(BOXES[int(number)])[::2] * factor - start[1]
                top, bottom = np.array(BOXES[int(number)])[1::2] * factor - start[0]
                moved = (40 - right, top, 40 - left, bottom) if mirrored else (left, top, right, bottom)
                if min(moved) >= 0 and max(moved) <= 40:
                    whole += 1
                    np.testing.assert_allclose(box, moved, atol=1e-4)
                else:
                    cut += 1
                    np.testing.assert_array_equal(box, around)
                if number < 2:  # a rectangle
                    np.testing.assert_allclose(np.clip(moved, 0, 40), around, atol=1.0)
        assert whole > 3
        assert scale[1] <= 1 or cut > 3

    def test_as_it_is(self):
        """Nothing in the padding, and at the picture's own scale the very pixels."""
        ((_, _, _, found), _), *_ = self.jittered(1, (2 / 3, 2 / 3), flip=False)
        assert not found[:, 30:].any()
        ((_, _, _, found), (_, start, _)), *_ = self.jittered(1, (1.5, 1.5), flip=False)
        top, left = start.astype(int)
        np.testing.assert_array_equal(found[:3], self.dense[:, top : top + 40, left : left + 40])

    def test_visible_part(self):
        """An object that the square cuts so that only its box is left goes; the others keep their order."""
        boxes = [(0, 0, 60, 45), BOXES[1], BOXES[2]]  # the first is far larger than its mask
        gone = 0
        for (_, fitted, classes, found), _ in self.jittered(30, (3.0, 3.0), boxes=boxes):
            kept = classes[classes >= 0].astype(int)
            assert found[: len(kept)].any(axis=(1, 2)).all()
            assert not found[len(kept) :].any()
            np.testing.assert_array_equal(fitted[: len(kept)], masks.boxes_around(found[: len(kept)]))
            gone += 0 not in kept and len(kept) > 0
        assert gone > 3

    def test_none(self):
        results = augment.jitter(
            tf.constant(encoded(picture([], 60, 45))),
            tf.zeros((0, 4)),
            tf.zeros(0, tf.int32),
            recipe(),
            Draws(7, tf.constant(0)),
            masks=tf.constant([], tf.string),
        )
        assert not results[-1].numpy().any()
        assert results[-1].shape == (4, 40, 40)


class TestSquare:
    def test_distribution(self):
        sides, told = tf.constant([300.0, 400.0]), recipe(scale=(0.1, 2.0), flip=True)
        draws = tf.data.Dataset.range(1000).map(lambda key: augment.sample_square(sides, told, Draws(3, key)))
        scale, start, mirrored = (np.stack(column) for column in zip(*draws.as_numpy_iterator()))
        share = np.sort((scale * 400 / 40 - 0.1) / 1.9)
        # Kolmogorov and Smirnov: a uniform sample exceeds this once in ten thousand times.
        assert np.abs(share - np.linspace(0, 1, 1000)).max() < 2.2 / np.sqrt(1000)
        assert 400 < mirrored.sum() < 600
        spare = np.maximum(scale[:, None] * [300, 400] - 40, 0)
        from_left = np.where(mirrored, scale * 400 - 40 - start[:, 1], start[:, 1])
        wide = spare.min(axis=1) > 5
        shares = np.stack([start[wide, 0], from_left[wide]]) / spare[wide].T
        assert (shares >= -1e-6).all()
        assert (shares <= 1 + 1e-6).all()
        np.testing.assert_allclose(shares.mean(axis=1), 0.5, atol=0.06)
        assert abs(np.corrcoef(shares)[0, 1]) < 0.15

    def test_same_key_same_square(self):
        sides, told = tf.constant([300.0, 400.0]), recipe(scale=(0.1, 2.0), flip=True)
        one, two, other = (augment.sample_square(sides, told, Draws(3, key)) for key in (4, 4, 5))
        np.testing.assert_array_equal(one[1], two[1])
        assert float(one[0]) == float(two[0]) != float(other[0])


class TestBoxes:
    def test_against_brute_force(self):
        rng = np.random.default_rng(0)
        corners = rng.uniform(-10, 70, (200, 2, 2))
        boxes = np.concatenate([corners.min(1), corners.max(1)], -1).astype("float32")
        for mirrored in (False, True):
            moved, numbers, cut = augment.moved(
                tf.constant(boxes), tf.range(200), tf.constant(0.7), tf.constant([3.0, -5.0]), mirrored, 32, 4.0
            )
            expected, expected_cut = {}, []
            for number, (left, top, right, bottom) in enumerate(boxes):
                x = sorted((32 - v if mirrored else v) for v in (left * 0.7 + 5, right * 0.7 + 5))
                left, right = (min(max(v, 0), 32) for v in x)
                y = [v * 0.7 - 3 for v in (top, bottom)]
                top, bottom = (min(max(v, 0), 32) for v in y)
                if right - left >= 4 and bottom - top >= 4:
                    expected[number] = (left, top, right, bottom)
                    expected_cut.append([left, right] != x or [top, bottom] != y)
            assert 20 < len(expected) < 190
            assert numbers.numpy().tolist() == [*expected]
            np.testing.assert_allclose(moved, [*expected.values()], atol=1e-5)
            assert cut.numpy().tolist() == expected_cut
            assert {*expected_cut} == {True, False}

    def test_no_area_is_never_kept(self):
        boxes = tf.constant([[40.0, 0, 50, 10], [0, 0, 10, 10]])
        moved, numbers, _ = augment.moved(boxes, tf.range(2), 1.0, tf.zeros(2), False, 32, 0.0)
        assert numbers.numpy().tolist() == [1]

    def test_boxes_with_exactly_the_least_side_are_kept(self):
        boxes = tf.constant([[-4.0, 0, 4, 9], [0, 28, 9, 40], [0, 0, 3.75, 9], [0, 0, 9, 3.75]])
        moved, numbers, _ = augment.moved(boxes, tf.range(4), 1.0, tf.zeros(2), False, 32, 4.0)
        assert numbers.numpy().tolist() == [0, 1]
        np.testing.assert_array_equal(moved, [[0, 0, 4, 9], [0, 28, 9, 32]])

    def test_padded(self):
        boxes, classes = augment.padded(tf.ones((2, 4)), tf.constant([5, 6]), 3)
        np.testing.assert_array_equal(boxes, [[1] * 4, [1] * 4, [-1] * 4])
        np.testing.assert_array_equal(classes, [5, 6, -1])
        with pytest.raises(tf.errors.InvalidArgumentError):
            augment.padded(tf.ones((4, 4)), tf.range(4), 3)
